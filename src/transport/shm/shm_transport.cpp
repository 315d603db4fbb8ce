// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/shm_transport.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "base/limits.h"
#include "io/address.h"

namespace sluice::transport {
const Capabilities ShmTransport::kCapabilities{
    .name = "shm", .fenced = true, .token = true, .same_host_only = true, .needs_shared_fd = true};

ShmTransport::ShmTransport(Senders& senders, const TransportOptions& options)
    : StreamTransport(senders, options), created_(shared_.cells.create()) {}

ShmTransport::~ShmTransport() {
    shut_down();
    if (!path_.empty()) ::unlink(path_.c_str());
}

Result<void> ShmTransport::check_region(const Region& region) {
    if (region.fd < 0) return {};  // can be received into
    const int seals = fcntl(region.fd, F_GET_SEALS);
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || region.fd_offset % page != 0)
        return fail(Errc::Unsupported);
    std::set<int> descriptors{region.fd};
    for (const Region& known : shared_.regions) descriptors.insert(known.fd);
    if (descriptors.size() >= kSharedDescriptorsMax) return fail(Errc::LimitReached);
    return {};
}

Result<RegionId> ShmTransport::register_memory(const Region& region) {
    TRY(created_);
    // Lanes read the list when they greet, on their own threads.
    if (has_lanes()) return fail(Errc::Unsupported);
    const auto id = StreamTransport::register_memory(region);
    if (!id) return id;
    if (shared_.regions.size() <= *id) shared_.regions.resize(*id + 1);
    shared_.regions[*id] = region;
    return id;
}

Result<void> ShmTransport::deregister_memory(RegionId region) {
    // Peers keep it mapped; what they read of it is never taken, since no post names it.
    return StreamTransport::deregister_memory(region);
}

Result<PostId> ShmTransport::post(PeerId peer, const Ticket& ticket, const Batch& batch,
                                  const PostOptions& options) {
    for (const Range& range : batch.ranges)
        if (range.region < shared_.regions.size() && shared_.regions[range.region].fd < 0)
            return fail(Errc::Unsupported);
    return StreamTransport::post(peer, ticket, batch, options);
}

Result<int> ShmTransport::make_listener(const Endpoint& endpoint, Endpoint& announced) {
    TRY(created_);
    const auto address = io::Address::from_unix_path(endpoint);
    if (!address) return std::unexpected(address.error());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    // A name that nobody answers at is left over from a process that was killed.
    if (::connect(fd, address->raw(), address->size()) != 0 && errno == ECONNREFUSED)
        ::unlink(endpoint.c_str());
    // The file gets the socket's own mode: the pool's user only.
    if (::fchmod(fd, 0600) != 0 || ::bind(fd, address->raw(), address->size()) != 0)
        return close_and_fail(fd);
    if (::listen(fd, limits::kListenBacklog) != 0) return close_and_fail(fd);
    path_ = announced = endpoint;
    return fd;
}

Result<int> ShmTransport::start_connect(const Endpoint& endpoint) {
    TRY(created_);
    const auto address = io::Address::from_unix_path(endpoint);
    if (!address) return std::unexpected(address.error());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    if (::connect(fd, address->raw(), address->size()) != 0) return close_and_fail(fd);
    return fd;
}

std::unique_ptr<StreamLane> ShmTransport::make_lane(const LaneSetup& setup) {
    return std::make_unique<ShmLane>(context(), setup, shared_);
}

void ShmTransport::open_cell(const Post& post, std::uint32_t cell) {
    shared_.cells.open(cell, post.epoch);
}
void ShmTransport::close_cell(std::uint32_t cell) { shared_.cells.close(cell); }

}  // namespace sluice::transport
