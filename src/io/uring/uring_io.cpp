// SPDX-License-Identifier: Apache-2.0
#include "io/uring/uring_io.h"

#include <liburing.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "io/uring/listener.h"

namespace sluice::io {

namespace {

constexpr int kPageGroup = 0;
constexpr std::uint64_t kWakeData = UINT64_MAX;
constexpr std::uint64_t kIgnoredData = UINT64_MAX - 1;  // the cancel requests themselves

std::uint64_t to_user_data(Handle id) { return std::uint64_t{id.generation} << 32 | id.index; }
Handle to_handle(std::uint64_t data) {
    return {static_cast<std::uint32_t>(data), static_cast<std::uint32_t>(data >> 32)};
}

unsigned ring_flags(TaskRun level) {
    constexpr unsigned kAlways = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED;
    switch (level) {
        case TaskRun::Defer:
            return kAlways | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
        case TaskRun::Cooperative:
            return kAlways | IORING_SETUP_COOP_TASKRUN;
        case TaskRun::Plain:
            return kAlways;
    }
    UNREACHABLE();
}

}  // namespace

UringIo::UringIo(std::size_t buffer_bytes_max)
    : buffers_(buffer_bytes_max),
      now_(MonotonicClock::now()),
      ring_(std::make_unique<io_uring>()),
      operations_(limits::kOperationsMax) {}

Result<std::unique_ptr<UringIo>> UringIo::create(const UringOptions& options) {
    if (!options.capabilities.sufficient())
        return fail(Errc::Unsupported, options.capabilities.setup_errno);
    std::unique_ptr<UringIo> io(new UringIo(options.buffer_bytes_max));
    TRY(io->set_up(options.capabilities));
    return io;
}

Result<void> UringIo::set_up(const UringCapabilities& capabilities) {
    io_uring_params params{};
    params.flags = ring_flags(capabilities.task_run);
    params.cq_entries = limits::kCompletionEntries;
    if (const int result = io_uring_queue_init_params(limits::kRingEntries, ring_.get(), &params);
        result < 0)
        return fail_errno(-result);
    ring_made_ = true;

    int error = 0;
    page_ring_ =
        io_uring_setup_buf_ring(ring_.get(), limits::kProvidedPages, kPageGroup, 0, &error);
    if (page_ring_ == nullptr) return fail_errno(-error);
    pages_.resize(limits::kProvidedPages);
    for (unsigned id = limits::kProvidedPages; id-- > 0;)
        missing_.push_back(static_cast<std::uint16_t>(id));
    refill_pages();

    wake_fd_ = eventfd(0, EFD_CLOEXEC);
    if (wake_fd_ < 0) return fail_errno();
    return {};
}

UringIo::~UringIo() {
    if (ring_made_) {
        if (page_ring_ != nullptr)
            io_uring_free_buf_ring(ring_.get(), page_ring_, limits::kProvidedPages, kPageGroup);
        io_uring_queue_exit(ring_.get());  // ends whatever is still in flight
    }
    if (wake_fd_ >= 0) ::close(wake_fd_);
}

io_uring_sqe* UringIo::next_sqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
    if (sqe == nullptr) {
        ASSERT(enabled_);  // before the first turn there is room for all that start-up asks
        ++counters_.enters;
        io_uring_submit(ring_.get());
        sqe = io_uring_get_sqe(ring_.get());
        ASSERT(sqe != nullptr);
    }
    return sqe;
}

Operation& UringIo::start(OpKind kind, Socket socket, OpTarget& target) {
    Operation* operation = operations_.emplace();
    ASSERT(operation != nullptr);  // kOperationsMax is far above what the connection limits allow
    operation->kind = kind;
    operation->socket = socket;
    operation->target = &target;
    return *operation;
}

// -- at once

Result<Socket> UringIo::listen(const Address& address, bool shared_port) {
    return open_listener(address, shared_port);
}

Result<Address> UringIo::local_address(Socket socket) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return fail_errno();
    return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), size);
}

Result<Socket> UringIo::open(const Address& peer) { return open_client(peer); }

void UringIo::shutdown_send(Socket socket) { ::shutdown(socket, SHUT_WR); }

void UringIo::close(Socket socket, bool reset) {
    if (reset) {
        const linger abort_now{1, 0};
        (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort_now, sizeof abort_now);
    }
    ::close(socket);
}

std::uint64_t UringIo::acknowledged_bytes(Socket socket) {
    tcp_info info{};
    socklen_t size = sizeof info;
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return UINT64_MAX;
    // The SYN of an active open counts as one byte.
    return info.tcpi_bytes_acked > 0 ? info.tcpi_bytes_acked - 1 : 0;
}

// -- operations

OpId UringIo::accept(Socket listener, OpTarget& target) {
    Operation& operation = start(OpKind::Accept, listener, target);
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_multishot_accept(sqe, listener, nullptr, nullptr, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, to_user_data(id_of(operation)));
    return id_of(operation);
}

OpId UringIo::connect(Socket socket, const Address& peer, OpTarget& target) {
    ++counters_.connects;
    Operation& operation = start(OpKind::Connect, socket, target);
    operation.peer = peer;
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_connect(sqe, socket, operation.peer.raw(), operation.peer.size());
    io_uring_sqe_set_data64(sqe, to_user_data(id_of(operation)));
    return id_of(operation);
}

OpId UringIo::receive(Socket socket, OpTarget& target) {
    Operation& operation = start(OpKind::Receive, socket, target);
    submit_receive(operation);
    return id_of(operation);
}

OpId UringIo::receive_into(Socket socket, BufferRef buffer, std::uint32_t offset,
                           std::uint32_t size, OpTarget& target) {
    Operation& operation = start(OpKind::Receive, socket, target);
    operation.buffer = std::move(buffer);
    operation.offset = offset;
    operation.size = size;
    submit_receive(operation);
    return id_of(operation);
}

void UringIo::submit_receive(Operation& operation) {
    io_uring_sqe* sqe = next_sqe();
    if (operation.buffer) {
        io_uring_prep_recv(sqe, operation.socket, operation.buffer.data() + operation.offset,
                           operation.size, 0);
    } else {
        io_uring_prep_recv(sqe, operation.socket, nullptr, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = kPageGroup;
    }
    io_uring_sqe_set_data64(sqe, to_user_data(id_of(operation)));
}

std::unique_ptr<SendState> UringIo::take_send_state() {
    if (spare_send_states_.empty()) return std::make_unique<SendState>();
    auto state = std::move(spare_send_states_.back());
    spare_send_states_.pop_back();
    return state;
}

OpId UringIo::send(Socket socket, const SliceQueue& queue, OpTarget& target) {
    Operation& operation = start(OpKind::Send, socket, target);
    operation.sending = take_send_state();
    SendState& state = *operation.sending;
    state.count = std::min(queue.count(), limits::kSendSlicesMax);
    state.bytes = 0;
    for (std::size_t i = 0; i < state.count; ++i) {
        const Slice& slice = queue[i];
        state.vectors[i] = {const_cast<char*>(slice.data()), slice.size};
        state.held[i] = slice.buffer;
        state.bytes += slice.size;
    }
    io_uring_sqe* sqe = next_sqe();
    if (state.count == 1) {
        io_uring_prep_send(sqe, socket, state.vectors[0].iov_base, state.vectors[0].iov_len,
                           MSG_NOSIGNAL | MSG_WAITALL);
    } else {
        state.message = {};
        state.message.msg_iov = state.vectors;
        state.message.msg_iovlen = state.count;
        io_uring_prep_sendmsg(sqe, socket, &state.message, MSG_NOSIGNAL | MSG_WAITALL);
    }
    io_uring_sqe_set_data64(sqe, to_user_data(id_of(operation)));
    return id_of(operation);
}

void UringIo::cancel(OpId id) {
    Operation* operation = operations_.get(id);
    if (operation == nullptr) return;
    if (operation->starved) {
        operation->cancelled = true;  // the kernel does not have it: retry_starved() ends it
        return;
    }
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_cancel64(sqe, to_user_data(id), 0);
    io_uring_sqe_set_data64(sqe, kIgnoredData);
}

// -- the turn

void UringIo::arm_wake() {
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_read(sqe, wake_fd_, &wake_value_, sizeof wake_value_, 0);
    io_uring_sqe_set_data64(sqe, kWakeData);
}

void UringIo::wake() {
    // One write wakes a turn; further wakes before it is seen need none.
    if (wake_pending_.exchange(true, std::memory_order_seq_cst)) return;
    const std::uint64_t one = 1;
    const ssize_t written = ::write(wake_fd_, &one, sizeof one);
    ASSERT(written == sizeof one);
}

void UringIo::enter(Duration max_wait) {
    ++counters_.enters;
    if (max_wait <= Duration::zero()) {
        io_uring_submit_and_get_events(ring_.get());
        return;
    }
    io_uring_cqe* first = nullptr;
    if (max_wait >= std::chrono::hours(1)) {
        io_uring_submit_and_wait(ring_.get(), 1);
        return;
    }
    __kernel_timespec timeout{};
    timeout.tv_sec = max_wait / std::chrono::seconds(1);
    timeout.tv_nsec = (max_wait % std::chrono::seconds(1)).count();
    io_uring_submit_and_wait_timeout(ring_.get(), &first, 1, &timeout, nullptr);
}

void UringIo::turn(Duration max_wait) {
    if (!enabled_) {
        const int result = io_uring_enable_rings(ring_.get());
        ASSERT(result == 0);
        (void)io_uring_register_ring_fd(ring_.get());  // saves a descriptor look-up; fine without
        enabled_ = true;
        arm_wake();
    }
    ++counters_.turns;
    refill_pages();
    if (retry_starved()) max_wait = Duration::zero();
    enter(max_wait);
    now_ = MonotonicClock::now();
    if (io_uring_cq_has_overflow(ring_.get())) ++counters_.overflows;

    unsigned head = 0;
    unsigned seen = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
        deliver(*cqe);
        ++seen;
    }
    io_uring_cq_advance(ring_.get(), seen);
}

void UringIo::deliver(const io_uring_cqe& cqe) {
    if (cqe.user_data == kIgnoredData) return;
    if (cqe.user_data == kWakeData) {
        wake_pending_.store(false, std::memory_order_seq_cst);
        arm_wake();
        return;
    }
    Operation* operation = operations_.get(to_handle(cqe.user_data));
    if (operation == nullptr) {
        ++counters_.stale;
        return;
    }

    Completion completion;
    completion.kind = operation->kind;
    completion.result = cqe.res;
    completion.more = (cqe.flags & IORING_CQE_F_MORE) != 0;
    switch (operation->kind) {
        case OpKind::Accept:
            if (cqe.res >= 0) ++counters_.accepts;
            break;
        case OpKind::Connect:
            break;
        case OpKind::Receive:
            if (cqe.res == -ENOBUFS) {
                ++counters_.no_buffers;
                operation->starved = true;
                starved_.push_back(to_handle(cqe.user_data));
                return;  // still in flight for its owner
            }
            ++counters_.receives;
            take_received_page(*operation, cqe, completion);
            break;
        case OpKind::Send:
            ++counters_.sends;
            if (cqe.res >= 0) {
                counters_.bytes_out += static_cast<std::uint64_t>(cqe.res);
                if (static_cast<std::size_t>(cqe.res) < operation->sending->bytes)
                    ++counters_.short_sends;
            }
            for (std::size_t i = 0; i < operation->sending->count; ++i)
                operation->sending->held[i].reset();
            spare_send_states_.push_back(std::move(operation->sending));
            break;
    }
    OpTarget* target = operation->target;
    if (!completion.more) operations_.erase(*operation);
    target->on_completion(completion);
}

void UringIo::take_received_page(Operation& operation, const io_uring_cqe& cqe,
                                 Completion& completion) {
    if (operation.buffer) {
        if (cqe.res > 0) {
            counters_.bytes_in += static_cast<std::uint64_t>(cqe.res);
            completion.bytes = {std::move(operation.buffer), operation.offset,
                                static_cast<std::uint32_t>(cqe.res)};
        }
        return;
    }
    if ((cqe.flags & IORING_CQE_F_BUFFER) == 0) return;
    const auto id = static_cast<std::uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    BufferRef page = std::move(pages_[id]);
    missing_.push_back(id);
    if (cqe.res <= 0) return;
    counters_.bytes_in += static_cast<std::uint64_t>(cqe.res);
    completion.bytes = {std::move(page), 0, static_cast<std::uint32_t>(cqe.res)};
}

void UringIo::refill_pages() {
    int added = 0;
    while (!missing_.empty()) {
        BufferRef page = buffers_.allocate_page();
        if (!page) break;
        const std::uint16_t id = missing_.back();
        missing_.pop_back();
        io_uring_buf_ring_add(page_ring_, page.data(), page.capacity(), id,
                              io_uring_buf_ring_mask(limits::kProvidedPages), added);
        pages_[id] = std::move(page);
        ++added;
    }
    if (added > 0) io_uring_buf_ring_advance(page_ring_, added);
}

// Receives that found no page are asked again when there are pages. True if a completion was
// delivered.
bool UringIo::retry_starved() {
    if (starved_.empty()) return false;
    const bool have_pages = missing_.size() < pages_.size();
    bool delivered = false;
    std::vector<OpId> waiting;
    waiting.swap(starved_);
    for (const OpId id : waiting) {
        Operation* operation = operations_.get(id);
        if (operation == nullptr) continue;
        if (operation->cancelled) {
            Completion completion;
            completion.kind = OpKind::Receive;
            completion.result = -ECANCELED;
            OpTarget* target = operation->target;
            operations_.erase(*operation);
            target->on_completion(completion);
            delivered = true;
        } else if (have_pages) {
            operation->starved = false;
            submit_receive(*operation);
        } else {
            starved_.push_back(id);
        }
    }
    return delivered;
}

}  // namespace sluice::io
