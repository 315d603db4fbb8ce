// SPDX-License-Identifier: Apache-2.0
#include "io/sim/sim_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice::io::sim {

namespace {

constexpr Socket kFirstSocket = 3;  // as if the standard ones were open

}  // namespace

SimIo::SimIo(int host, Timeline& timeline, Network& network, Rng& rng, Trace& trace,
             const Faults& faults, std::size_t pool_bytes)
    : host_(host),
      timeline_(timeline),
      network_(network),
      rng_(rng),
      trace_(trace),
      faults_(&faults),
      pool_(pool_bytes) {}

SimIo::~SimIo() {
    for (SocketEntry& each : sockets_) {
        if (each.endpoint && !each.endpoint->closed) network_.close(*each.endpoint, true);
        if (each.listener) network_.close_listener(*each.listener);
    }
}

Duration SimIo::random_up_to(Duration most) {
    return Duration(
        static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(most.count()) + 1)));
}

// ---- sockets

SimIo::SocketEntry& SimIo::entry(Socket socket) {
    const auto index = static_cast<std::size_t>(socket - kFirstSocket);
    ASSERT(socket >= kFirstSocket && index < sockets_.size());
    ASSERT(sockets_[index].state != SocketState::Free);
    return sockets_[index];
}

// The lowest free number, as the kernel does it: whoever uses a closed socket's number hits another
// connection.
Result<Socket> SimIo::take_socket() {
    if (out_of_sockets()) return fail_errno(EMFILE);
    const auto free = std::ranges::find(sockets_, SocketState::Free, &SocketEntry::state);
    const auto index = free - sockets_.begin();
    if (free == sockets_.end()) sockets_.emplace_back();
    sockets_[static_cast<std::size_t>(index)].state = SocketState::Fresh;
    ++sockets_open_;
    return kFirstSocket + static_cast<Socket>(index);
}

Result<Socket> SimIo::listen(const Address& address, bool shared_port) {
    const auto socket = take_socket();
    if (!socket) return socket;
    auto listener = network_.listen(*this, *socket, address, shared_port);
    if (!listener) {
        entry(*socket) = SocketEntry();
        --sockets_open_;
        return std::unexpected(listener.error());
    }
    SocketEntry& made = entry(*socket);
    made.state = SocketState::Listening;
    made.listener = std::move(*listener);
    trace_.add(now(), host_, "listen", *socket);
    return socket;
}

Result<Address> SimIo::local_address(Socket socket) {
    const SocketEntry& found = entry(socket);
    if (found.listener) return found.listener->address;
    if (found.endpoint) return found.endpoint->local;
    return fail_errno(EINVAL);
}

Result<Socket> SimIo::open(const Address& peer) {
    ASSERT(peer.valid());
    return take_socket();
}

void SimIo::shutdown_send(Socket socket) {
    SocketEntry& found = entry(socket);
    ASSERT(found.state == SocketState::Connected);
    ASSERT(!found.send.valid());
    trace_.add(now(), host_, "shutdown", socket);
    network_.shutdown_send(*found.endpoint);
}

void SimIo::close(Socket socket, bool reset) {
    SocketEntry& found = entry(socket);
    ASSERT(!found.busy());
    trace_.add(now(), host_, reset ? "close with reset" : "close", socket);
    // Free before the network hears of it, so that nothing comes back to this number.
    const SocketEntry closing = std::exchange(found, SocketEntry());
    --sockets_open_;
    if (closing.listener) network_.close_listener(*closing.listener);
    if (closing.endpoint && !closing.endpoint->closed) network_.close(*closing.endpoint, reset);
}

std::uint64_t SimIo::acknowledged_bytes(Socket socket) {
    const SocketEntry& found = entry(socket);
    if (!found.endpoint) return 0;
    // A unix socket has no acknowledgements.
    return found.endpoint->is_unix ? UINT64_MAX : found.endpoint->acknowledged;
}

// ---- starting operations

OpId SimIo::start(OpKind kind, Socket socket, OpTarget& target, OpId SocketEntry::*place) {
    Operation* operation = operations_.emplace();
    ASSERT(operation != nullptr);
    operation->kind = kind;
    operation->target = &target;
    operation->socket = socket;
    const OpId id = operations_.handle_of(*operation);
    SocketEntry& on = entry(socket);
    ASSERT(!(on.*place).valid());
    on.*place = id;
    submissions_.push_back({id, false});
    return id;
}

OpId SimIo::accept(Socket listener, OpTarget& target) {
    ASSERT(entry(listener).state == SocketState::Listening);
    return start(OpKind::Accept, listener, target, &SocketEntry::other);
}

OpId SimIo::connect(Socket socket, const Address& peer, OpTarget& target) {
    SocketEntry& found = entry(socket);
    ASSERT(found.state == SocketState::Fresh);
    found.state = SocketState::Connecting;
    ++counters_.connects;
    const OpId id = start(OpKind::Connect, socket, target, &SocketEntry::other);
    operations_.get(id)->peer = peer;
    return id;
}

OpId SimIo::receive(Socket socket, OpTarget& target) {
    ASSERT(entry(socket).state == SocketState::Connected);
    return start(OpKind::Receive, socket, target, &SocketEntry::receive);
}

OpId SimIo::receive_into(Socket socket, BufferRef buffer, std::uint32_t offset, std::uint32_t size,
                         OpTarget& target) {
    ASSERT(buffer && size > 0 && offset + size <= buffer.capacity());
    const OpId id = receive(socket, target);
    Operation& operation = *operations_.get(id);
    operation.buffer = std::move(buffer);
    operation.offset = offset;
    operation.size = size;
    return id;
}

OpId SimIo::send(Socket socket, const SliceQueue& queue, OpTarget& target) {
    ASSERT(entry(socket).state == SocketState::Connected);
    ASSERT(!queue.empty());
    const OpId id = start(OpKind::Send, socket, target, &SocketEntry::send);
    Operation& operation = *operations_.get(id);
    for (std::size_t i = 0; i < std::min(queue.count(), limits::kSendSlicesMax); ++i) {
        operation.slices.push_back(queue[i]);
        operation.total += queue[i].size;
    }
    operation.checksum = checksum_of(operation);
    operation.limit = operation.total;
    if (chance(faults_->short_send)) operation.limit = rng_.between(1, operation.total);
    return id;
}

void SimIo::cancel(OpId operation) {
    if (operations_.get(operation) != nullptr) submissions_.push_back({operation, true});
}

// ---- a turn

void SimIo::turn(Duration) {
    ++counters_.turns;
    woken_.store(false, std::memory_order_relaxed);
    if (!submissions_.empty()) ++counters_.enters;
    std::vector<Submission> submissions = std::exchange(submissions_, {});
    for (const Submission& each : submissions) submit(each);

    // Only what is there now: a turn ends even if each completion makes another one.
    std::vector<Ready> batch;
    for (Ready& each : ready_)
        if (each.due <= now()) batch.push_back(std::move(each));
    std::erase_if(ready_, [&](const Ready& each) { return each.due <= now(); });
    for (std::size_t i = 1; i < batch.size(); ++i)
        if (batch[i - 1].operation != batch[i].operation && chance(faults_->reorder))
            std::swap(batch[i - 1], batch[i]);
    for (Ready& each : batch) deliver(each);
}

Instant SimIo::next_completion() const {
    Instant first = kNever;
    for (const Ready& each : ready_) first = std::min(first, each.due);
    return first;
}

void SimIo::submit(Submission submission) {
    if (submission.cancel) {
        if (!chance(faults_->late_cancel)) return apply_cancel(submission.operation);
        timeline_.schedule_after(random_up_to(faults_->late_max),
                                 [this, id = submission.operation] { apply_cancel(id); });
        return;
    }
    Operation* operation = operations_.get(submission.operation);
    ASSERT(operation != nullptr);
    operation->submitted = true;
    if (operation->kind == OpKind::Connect) return begin_connect(*operation);
    progress(*operation);
}

void SimIo::apply_cancel(OpId id) {
    Operation* operation = operations_.get(id);
    if (operation == nullptr || operation->ended) return;
    trace_.add(now(), host_, "cancelled", operation->socket,
               static_cast<std::int64_t>(operation->kind));
    const bool partly = operation->kind == OpKind::Send && operation->sent > 0;
    end(*operation, partly ? static_cast<std::int32_t>(operation->sent) : -ECANCELED);
}

void SimIo::progress(Operation& operation) {
    if (!operation.submitted || operation.ended) return;
    switch (operation.kind) {
        case OpKind::Accept:
            return progress_accept(operation);
        case OpKind::Receive:
            return progress_receive(operation);
        case OpKind::Send:
            return progress_send(operation);
        case OpKind::Connect:
            return;
    }
}

void SimIo::begin_connect(Operation& operation) {
    entry(operation.socket).endpoint = network_.connect(*this, operation.socket, operation.peer);
}

void SimIo::progress_accept(Operation& operation) {
    Listener& listener = *entry(operation.socket).listener;
    while (!listener.backlog.empty() && !operation.ended) {
        if (out_of_sockets() || chance(faults_->accept_emfile)) return end(operation, -EMFILE);
        const std::shared_ptr<Endpoint> endpoint = listener.backlog.front();
        listener.backlog.pop_front();
        const Socket socket = *take_socket();
        SocketEntry& made = entry(socket);
        made.state = SocketState::Connected;
        made.endpoint = endpoint;
        endpoint->owner = this;
        endpoint->socket = socket;
        if (chance(faults_->accept_ends)) return end(operation, socket);
        post(operation, {OpKind::Accept, true, socket, {}});
    }
}

void SimIo::progress_receive(Operation& operation) {
    Endpoint& endpoint = *entry(operation.socket).endpoint;
    if (!endpoint.readable() || operation.retrying) return;
    if (endpoint.unread() == 0) return end(operation, network_.receive(endpoint, nullptr, 0));
    const bool own_page = !operation.buffer;
    BufferRef buffer = operation.buffer;
    if (own_page && !chance(faults_->no_buffers)) buffer = pool_.allocate_page();
    if (!buffer) return wait_for_page(operation);
    std::size_t room = own_page ? BufferPool::kPageCapacity : operation.size;
    room = std::min(room, endpoint.unread());
    if (chance(faults_->split_read)) room = rng_.between(1, room);
    char* place = buffer.data() + operation.offset;
    const int got = network_.receive(endpoint, place, room);
    ASSERT(got > 0);
    // Whoever reads on behind what arrived finds nonsense, not zeros.
    if (own_page) std::memset(place + got, 0xa5, limits::kBufferSlack);
    const auto size = static_cast<std::uint32_t>(got);
    end(operation, got, Slice{std::move(buffer), operation.offset, size});
}

void SimIo::wait_for_page(Operation& operation) {
    ++counters_.no_buffers;
    operation.retrying = true;
    const OpId id = operations_.handle_of(operation);
    const Duration wait = std::chrono::microseconds(50) + random_up_to(faults_->late_max);
    timeline_.schedule_after(wait, [this, id] {
        Operation* waiting = operations_.get(id);
        if (waiting == nullptr) return;
        waiting->retrying = false;
        progress(*waiting);
    });
}

// One write for all slices, as a vectored send is one: they arrive together.
void SimIo::progress_send(Operation& operation) {
    Endpoint& endpoint = *entry(operation.socket).endpoint;
    std::string bytes;
    std::size_t skip = operation.sent;
    for (const Slice& slice : operation.slices) {
        const std::size_t skipped = std::min<std::size_t>(skip, slice.size);
        bytes += slice.view().substr(skipped);
        skip -= skipped;
    }
    bytes.resize(operation.limit - operation.sent);
    const int taken = network_.send(endpoint, bytes);
    if (taken < 0 && operation.sent == 0) return end(operation, taken);
    // What was taken before the break is told now, the break with the next send.
    if (taken < 0)
        endpoint.send_error = -taken;
    else
        operation.sent += static_cast<std::size_t>(taken);
    // The rest waits until the peer has read.
    if (taken >= 0 && operation.sent < operation.limit) return;
    end(operation, static_cast<std::int32_t>(operation.sent));
}

// ---- what the network tells

void SimIo::on_acceptable(Socket listener) {
    if (Operation* waiting = operations_.get(entry(listener).other)) progress(*waiting);
}

void SimIo::on_connect_ended(Socket socket, int error) {
    SocketEntry& found = entry(socket);
    Operation* operation = operations_.get(found.other);
    // Cancelled, and the completion is on its way; the socket is of no use to anybody.
    if (operation == nullptr || operation->ended) return;
    if (error == 0) found.state = SocketState::Connected;
    end(*operation, -error);
}

void SimIo::on_readable(Socket socket) {
    if (Operation* waiting = operations_.get(entry(socket).receive)) progress(*waiting);
}

void SimIo::on_writable(Socket socket) {
    if (Operation* waiting = operations_.get(entry(socket).send)) progress(*waiting);
}

// ---- completions

void SimIo::post(Operation& operation, Completion completion) {
    Instant due = now();
    if (chance(faults_->late_completion)) due += random_up_to(faults_->late_max);
    due = std::max(due, operation.last_due);
    operation.last_due = due;
    ready_.push_back({operations_.handle_of(operation), due, std::move(completion)});
}

void SimIo::end(Operation& operation, std::int32_t result, Slice bytes) {
    ASSERT(!operation.ended);
    operation.ended = true;
    post(operation, {operation.kind, false, result, std::move(bytes)});
}

void SimIo::deliver(Ready& ready) {
    Operation* operation = operations_.get(ready.operation);
    ASSERT(operation != nullptr);
    Completion& completion = ready.completion;
    OpTarget& target = *operation->target;
    trace_.add(now(), host_, "completion",
               operation->socket * 10 + static_cast<int>(completion.kind), completion.result);
    count(*operation, completion);
    if (!completion.more) {
        SocketEntry& on = entry(operation->socket);
        switch (completion.kind) {
            case OpKind::Accept:
            case OpKind::Connect:
                on.other = {};
                break;
            case OpKind::Receive:
                on.receive = {};
                break;
            case OpKind::Send:
                ASSERT(checksum_of(*operation) == operation->checksum);
                on.send = {};
                // Linux tells the error once: if a send took it, a later receive may see an orderly
                // end.
                if (completion.result < 0 && !on.receive.valid() && rng_.chance(0.5))
                    on.endpoint->receive_error = 0;
                break;
        }
        operations_.erase(*operation);
    }
    target.on_completion(completion);
}

void SimIo::count(const Operation& operation, const Completion& completion) {
    const auto bytes = static_cast<std::uint64_t>(std::max(completion.result, 0));
    switch (completion.kind) {
        case OpKind::Accept:
            if (completion.result >= 0) ++counters_.accepts;
            break;
        case OpKind::Connect:
            break;
        case OpKind::Receive:
            ++counters_.receives;
            counters_.bytes_in += bytes;
            break;
        case OpKind::Send:
            ++counters_.sends;
            counters_.bytes_out += bytes;
            if (completion.result >= 0 && bytes < operation.total) ++counters_.short_sends;
            break;
    }
}

std::uint64_t SimIo::checksum_of(const Operation& operation) {
    std::uint64_t sum = 0xcbf29ce484222325ULL;
    for (const Slice& slice : operation.slices)
        for (const char c : slice.view())
            sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    return sum;
}

// ---- the end

void SimIo::sever(Death death) {
    for (SocketEntry& each : sockets_) {
        if (each.listener) {
            if (death == Death::PowerCut)
                network_.vanish_listener(*each.listener);
            else
                network_.close_listener(*each.listener);
        }
        if (!each.endpoint) continue;
        if (!each.endpoint->closed) {
            if (death == Death::PowerCut)
                network_.vanish(*each.endpoint);
            else
                network_.close(*each.endpoint, death == Death::Reset);
        }
        auto broken = std::make_shared<Endpoint>();
        broken->host = host_;
        broken->local = each.endpoint->local;
        broken->is_unix = each.endpoint->is_unix;
        broken->closed = broken->gone = true;
        broken->receive_error = broken->send_error = ECONNRESET;
        each.endpoint = std::move(broken);
    }
    operations_.for_each([this](Operation& operation) {
        if (operation.kind == OpKind::Connect && operation.submitted && !operation.ended)
            end(operation, -ENETDOWN);
        else
            progress(operation);
    });
}

std::string SimIo::leftovers() const {
    std::string text;
    const auto report = [&](const char* what, std::size_t count) {
        if (count != 0)
            text +=
                "host " + std::to_string(host_) + ": " + std::to_string(count) + " " + what + "\n";
    };
    report("operations in flight", operations_.size());
    report("sockets open", sockets_open_);
    report("buffers in use", pool_.buffers_in_use());
    return text;
}

}  // namespace sluice::io::sim
