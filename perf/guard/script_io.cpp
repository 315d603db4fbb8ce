// SPDX-License-Identifier: Apache-2.0
#include "script_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice::guard {

namespace {

constexpr Duration kTurn = std::chrono::microseconds(50);

// Whether `bytes` are a whole message with a Content-Length or in chunks, as this proxy writes
// them.
bool is_whole(const std::string& bytes) {
    const auto head = bytes.find("\r\n\r\n");
    if (head == std::string::npos) return false;
    const auto length = bytes.find("\r\nContent-Length: ");
    if (length < head)
        return bytes.size() >= head + 4 + std::strtoul(bytes.c_str() + length + 18, nullptr, 10);
    return bytes.ends_with("\r\n0\r\n\r\n");
}

}  // namespace

void ScriptIo::begin(const Script& script, int clients, std::uint64_t requests) {
    script_ = script;
    wanted_ = requests;
    asked_ = answered_ = 0;
    // Clients of the phase before stay connected.
    for (auto& [socket, peer] : peers_)
        if (peer.role == Role::Client) {
            ask(peer);
            --clients;
        }
    clients_to_come_ = std::max(0, clients);
}

void ScriptIo::ask(Peer& client) {
    if (asked_ == wanted_) return;
    ++asked_;
    client.heard.clear();
    client.says.push_back(script_.request);
}

// What a peer does with bytes that the proxy sent it.
void ScriptIo::hear(Peer& peer, const std::string& bytes) {
    peer.heard += bytes;
    if (!is_whole(peer.heard)) return;
    switch (peer.role) {
        case Role::Client:
            ++answered_;
            if (!peer.heard.starts_with("HTTP/1.1 200 ")) ++bad_;
            ask(peer);
            return;
        case Role::Prefill:
            peer.says.push_back(script_.prefill_answer);
            peer.silent_turns = 1;
            break;
        case Role::Decode:
            peer.says.insert(peer.says.end(), script_.decode_answer.begin(),
                             script_.decode_answer.end());
            peer.silent_turns = 2;
            break;
    }
    peer.heard.clear();
}

io::OpId ScriptIo::start(io::OpKind kind, io::Socket socket, io::OpTarget& target) {
    const std::uint32_t index = next_operation_++;
    Operation& operation = operations_[index];
    operation.kind = kind;
    operation.socket = socket;
    operation.target = &target;
    return {index, 0};
}

Result<io::Socket> ScriptIo::open(const io::Address& peer) {
    const Uncounted uncounted;
    const io::Socket socket = next_socket_++;
    peers_[socket].role =
        peer.text().ends_with(":" + std::to_string(kPrefillPort)) ? Role::Prefill : Role::Decode;
    return socket;
}

void ScriptIo::close(io::Socket socket, bool) {
    const Uncounted uncounted;
    peers_.erase(socket);
}

io::OpId ScriptIo::accept(io::Socket listener, io::OpTarget& target) {
    const Uncounted uncounted;
    return start(io::OpKind::Accept, listener, target);
}

io::OpId ScriptIo::connect(io::Socket socket, const io::Address&, io::OpTarget& target) {
    const Uncounted uncounted;
    const io::OpId id = start(io::OpKind::Connect, socket, target);
    operations_[id.index].done = true;
    return id;
}

io::OpId ScriptIo::receive(io::Socket socket, io::OpTarget& target) {
    const Uncounted uncounted;
    return start(io::OpKind::Receive, socket, target);
}

io::OpId ScriptIo::receive_into(io::Socket socket, BufferRef buffer, std::uint32_t offset,
                                std::uint32_t size, io::OpTarget& target) {
    const Uncounted uncounted;
    const io::OpId id = start(io::OpKind::Receive, socket, target);
    Operation& operation = operations_[id.index];
    operation.buffer = std::move(buffer);
    operation.offset = offset;
    operation.size = size;
    return id;
}

io::OpId ScriptIo::send(io::Socket socket, const SliceQueue& queue, io::OpTarget& target) {
    const Uncounted uncounted;
    const io::OpId id = start(io::OpKind::Send, socket, target);
    Operation& operation = operations_[id.index];
    std::string bytes;
    for (std::size_t i = 0; i < std::min(queue.count(), limits::kSendSlicesMax); ++i) {
        operation.sending.push(queue[i]);
        bytes += queue[i].view();
    }
    operation.result = static_cast<std::int32_t>(bytes.size());
    operation.done = true;
    ++counters_.sends;
    if (const auto peer = peers_.find(socket); peer != peers_.end()) hear(peer->second, bytes);
    return id;
}

void ScriptIo::cancel(io::OpId id) {
    const Uncounted uncounted;
    const auto operation = operations_.find(id.index);
    if (operation == operations_.end() || operation->second.done) return;
    operation->second.result = -ECANCELED;
    operation->second.done = true;
}

// Puts what the peer says next where the receive wants it. False: it says nothing now.
bool ScriptIo::fill(Operation& operation, io::Completion& completion) {
    const auto found = peers_.find(operation.socket);
    if (found == peers_.end()) return false;
    Peer& peer = found->second;
    if (peer.silent_turns > 0 || peer.says.empty()) return false;
    std::string& text = peer.says.front();
    if (!operation.buffer) {
        operation.buffer = pool_.allocate_page();
        operation.size = operation.buffer.capacity();
    }
    const std::size_t size = std::min<std::size_t>(text.size(), operation.size);
    std::memcpy(operation.buffer.data() + operation.offset, text.data(), size);
    text.erase(0, size);
    if (text.empty()) peer.says.pop_front();
    completion.bytes = {std::move(operation.buffer), operation.offset,
                        static_cast<std::uint32_t>(size)};
    completion.result = static_cast<std::int32_t>(size);
    return true;
}

void ScriptIo::deliver(std::uint32_t index) {
    const auto found = operations_.find(index);
    if (found == operations_.end()) return;
    Operation& operation = found->second;
    io::Completion completion;
    completion.kind = operation.kind;
    completion.result = operation.result;
    if (operation.kind == io::OpKind::Accept && !operation.done) {
        if (clients_to_come_ == 0) return;
        --clients_to_come_;
        completion.more = true;
        completion.result = next_socket_++;
        ask(peers_[completion.result]);
    } else if (operation.kind == io::OpKind::Receive && !operation.done) {
        if (!fill(operation, completion)) return;
        ++counters_.receives;
    }
    io::OpTarget* target = operation.target;
    if (!completion.more) operations_.erase(found);
    {
        const Counted counted;
        target->on_completion(completion);
    }
}

// Everything that is due now, once each; what it leads to is for the next turn.
void ScriptIo::turn(Duration max_wait) {
    const Uncounted uncounted;
    ++counters_.turns;
    now_ += kTurn;
    std::vector<std::uint32_t> indices;
    for (const auto& [index, operation] : operations_) indices.push_back(index);
    const std::size_t before = operations_.size();
    const auto receives = counters_.receives;
    for (const std::uint32_t index : indices) deliver(index);
    for (auto& [socket, peer] : peers_)
        if (peer.silent_turns > 0) --peer.silent_turns;
    // Nothing happened: to the next timer, at most a while.
    const bool still = operations_.size() == before && counters_.receives == receives;
    if (still && max_wait > Duration::zero())
        now_ += std::min<Duration>(max_wait, std::chrono::milliseconds(1));
}

}  // namespace sluice::guard
