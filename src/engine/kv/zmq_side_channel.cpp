// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/zmq_side_channel.h"

#include <algorithm>

#include "engine/core.h"
#include "mooncake/msgpack.h"

namespace sluice::engine {

namespace {

using mooncake::MsgpackReader;
using mooncake::MsgpackWriter;

constexpr Duration kReconnect = std::chrono::milliseconds(100);  // ZeroMQ's own
constexpr std::string_view kContent = "sluice_content";
constexpr std::string_view kEngineId = "sluice_engine_id";  // of the NIXL stand-in

// A layout that nothing is written by, in the members that vLLM needs to find.
constexpr std::size_t kLayers = 4;
constexpr std::uint64_t kBlockBytes = 32768;

void write_layout(MsgpackWriter& writer) {
    const auto list = [&](std::string_view name, auto&& element) {
        writer.string(name).array(kLayers);
        for (std::size_t i = 0; i < kLayers; ++i) element(i);
    };
    const auto number = [&](std::uint64_t value) {
        return [&writer, value](std::size_t) { writer.number(value); };
    };
    list("kv_caches_base_addr", [&](std::size_t i) { writer.number((i + 1) << 32); });
    list("block_lens", number(kBlockBytes));
    list("kv_block_lens", number(kBlockBytes));
    list("registered_layer_names", [&](std::size_t i) {
        writer.string("model.layers." + std::to_string(i) + ".self_attn.attn");
    });
    list("registered_layer_indices", [&](std::size_t i) { writer.number(i); });
    list("registered_group_indices", number(0));
}
constexpr std::size_t kLayoutMembers = 6;

std::optional<PullMessage> read_message(std::string_view bytes) {
    const auto pull = mooncake::read_pull(bytes);
    if (!pull) return std::nullopt;
    PullMessage message;
    message.tp_rank = pull->tp_rank;
    message.tp_size = pull->tp_size;
    message.has_layout = !pull->member("kv_caches_base_addr").empty() &&
                         !pull->member("block_lens").empty() &&
                         !pull->member("kv_block_lens").empty();
    if (const std::string_view id = pull->member(kEngineId); !id.empty())
        message.engine_id = MsgpackReader(id).string().value_or("");
    for (const mooncake::PullItem& each : pull->items) {
        PullItem& item = message.items.emplace_back();
        item.request = each.request;
        item.transfer = each.transfer;
        item.blocks = mooncake::block_count(each.blocks);
        item.remote_blocks = mooncake::block_ids(each.blocks);
    }
    return message;
}

std::string write_response(const PullResponse& response) {
    std::vector<std::string_view> ok, failed;
    for (const auto& each : response.ok) ok.push_back(each.request);
    for (const auto& each : response.failed) failed.push_back(each);
    const auto status = response.status == PullStatus::Continue ? mooncake::Status::Continue
                        : response.status == PullStatus::Error  ? mooncake::Status::Error
                                                                : mooncake::Status::Finish;
    const std::string plain = mooncake::write_response(status, ok, failed, response.message);
    if (response.ok.empty()) return plain;
    // One member more.
    std::string out;
    MsgpackWriter writer(out);
    MsgpackReader reader(plain);
    const std::uint32_t members = reader.map().value_or(0);
    writer.map(members + 1);
    for (std::uint32_t i = 0; i < 2 * members; ++i) writer.raw(reader.skip().value_or(""));
    writer.string(kContent).map(response.ok.size());
    for (const auto& each : response.ok) writer.string(each.request).number(each.content);
    return out;
}

std::optional<PullResponse> read_response(std::string_view bytes) {
    const auto read = mooncake::read_response(bytes);
    if (!read) return std::nullopt;
    PullResponse response;
    response.status = read->status == mooncake::Status::Continue ? PullStatus::Continue
                      : read->status == mooncake::Status::Finish ? PullStatus::Finish
                                                                 : PullStatus::Error;
    response.message = read->message;
    for (const std::string_view id : read->ok) response.ok.push_back({std::string(id), 0});
    for (const std::string_view id : read->failed) response.failed.emplace_back(id);
    const auto content = std::ranges::find(read->members, kContent, &mooncake::Member::key);
    if (content == read->members.end()) return response;
    MsgpackReader reader(content->raw);
    for (std::uint32_t left = reader.map().value_or(0); left > 0; --left) {
        const auto request = reader.string();
        const auto hash = reader.unsigned_number();
        if (!request || !hash) return std::nullopt;
        const auto at = std::ranges::find(response.ok, *request, &PullResponse::Ok::request);
        if (at != response.ok.end()) at->content = *hash;
    }
    return response;
}

}  // namespace

// -- P

class ZmqSideChannel::Replier final : public PullReplier {
public:
    Replier(std::shared_ptr<Line> line, Handle peer) : line_(std::move(line)), peer_(peer) {}
    void respond(const PullResponse& response) override {
        if (line_->channel != nullptr)
            line_->channel->router_.send(peer_, write_response(response));
    }

private:
    std::shared_ptr<Line> line_;
    Handle peer_;
};

Result<io::Address> ZmqSideChannel::listen(const io::Address& address, PullHandler& handler) {
    const auto socket = context_.loop.io().listen(address, false);
    if (!socket) return std::unexpected(socket.error());
    const auto bound = context_.loop.io().local_address(*socket);
    router_.add_listener(*socket, static_cast<std::uint32_t>(handlers_.size()));
    handlers_.push_back(&handler);
    return bound;
}

void ZmqSideChannel::on_message(Handle peer, std::uint32_t listener, std::string_view bytes) {
    auto message = read_message(bytes);
    if (!message) {
        PullResponse response;
        response.status = PullStatus::Error;
        response.message = "the message cannot be decoded";
        return router_.send(peer, write_response(response));
    }
    handlers_[listener]->on_pull(std::move(*message), std::make_unique<Replier>(line_, peer));
}

// -- D

std::string ZmqSideChannel::write_message(const PullMessage& message) const {
    std::string out;
    MsgpackWriter writer(out);
    writer.map(5 + kLayoutMembers + (message.engine_id.empty() ? 0 : 1));
    writer.string("remote_hostname").string(reachable_host(context_.options));
    writer.string("remote_port").number(transfer_port_ + message.tp_rank);
    writer.string("remote_tp_size").number(message.tp_size);
    writer.string("remote_tp_rank").number(message.tp_rank);
    writer.string("req_blocks").map(message.items.size());
    for (const PullItem& item : message.items) {
        writer.string(item.request).array(2).string(item.transfer).array(1).array(item.blocks);
        for (std::uint32_t i = 0; i < item.blocks; ++i)
            writer.number(item.remote_blocks.empty() ? i + 1 : item.remote_blocks[i]);
    }
    write_layout(writer);
    if (!message.engine_id.empty()) writer.string(kEngineId).string(message.engine_id);
    return out;
}

// One pull with its socket.
class ZmqSideChannel::Asking final : public mooncake::PeerEvents {
public:
    Asking(ZmqSideChannel& channel, std::uint64_t number, const io::Address& address,
           std::string message, PullEvents& events)
        : channel_(channel),
          number_(number),
          address_(address),
          message_(std::move(message)),
          events_(&events),
          again_(Delegate<void()>::to<&Asking::start>(*this)),
          peer_(std::make_unique<mooncake::Peer>(channel.context_.loop,
                                                 mooncake::SocketType::Dealer, *this)) {}

    void start() {
        if (!open_) {
            open_ = true;
            if (was_used_)
                peer_ = std::make_unique<mooncake::Peer>(channel_.context_.loop,
                                                         mooncake::SocketType::Dealer, *this);
            was_used_ = true;
        }
        if (peer_->connect(address_)) {
            if (!sent_) peer_->send(message_);
        } else {
            open_ = was_used_ = false;
            channel_.context_.loop.arm(again_, kReconnect);
        }
    }
    // True: it is over at once.
    bool forget() {
        events_ = nullptr;
        again_.cancel();
        if (open_) peer_->close_now();
        return !open_;
    }
    std::uint64_t number() const { return number_; }

private:
    void on_peer_ready(mooncake::Peer&) override { sent_ = true; }
    void on_peer_message(mooncake::Peer&, std::string_view message) override {
        if (events_ == nullptr) return;
        if (const auto response = read_response(message))
            events_->on_pull_response(number_, *response);
    }
    void on_peer_gone(mooncake::Peer&) override {}
    void on_peer_closed(mooncake::Peer&) override {
        open_ = false;
        if (events_ == nullptr) return channel_.closed(*this);
        if (!sent_) channel_.context_.loop.arm(again_, kReconnect);
    }

    ZmqSideChannel& channel_;
    const std::uint64_t number_;
    const io::Address address_;
    const std::string message_;
    PullEvents* events_;
    Timer again_;
    std::unique_ptr<mooncake::Peer> peer_;
    bool open_ = false;
    bool was_used_ = false;
    bool sent_ = false;
};

ZmqSideChannel::ZmqSideChannel(const Context& context)
    : context_(context),
      router_(context.loop, *this),
      purge_(Delegate<void()>::to<&ZmqSideChannel::purge>(*this)),
      line_(std::make_shared<Line>(this)),
      transfer_port_(static_cast<std::uint32_t>(context.rng.between(15000, 16000))) {}

ZmqSideChannel::~ZmqSideChannel() { line_->channel = nullptr; }

std::uint64_t ZmqSideChannel::pull(const io::Address& peer, const PullMessage& message,
                                   PullEvents& events) {
    const std::uint64_t number = next_++;
    auto asking = std::make_unique<Asking>(*this, number, peer, write_message(message), events);
    Asking& started = *asking;
    asking_.emplace(number, std::move(asking));
    started.start();
    return number;
}

void ZmqSideChannel::forget(std::uint64_t pull) {
    const auto found = asking_.find(pull);
    if (found == asking_.end()) return;
    auto asking = std::move(found->second);
    asking_.erase(found);
    if (asking->forget()) {
        over_.push_back(std::move(asking));  // it may be on the stack
        context_.loop.defer(purge_);
    } else {
        closing_.push_back(std::move(asking));
    }
}

void ZmqSideChannel::closed(Asking& asking) {
    const auto found =
        std::ranges::find_if(closing_, [&](const auto& each) { return each.get() == &asking; });
    ASSERT(found != closing_.end());
    over_.push_back(std::move(*found));
    closing_.erase(found);
    context_.loop.defer(purge_);
}

void ZmqSideChannel::purge() { over_.clear(); }

void ZmqSideChannel::stop() {
    while (!asking_.empty()) forget(asking_.begin()->first);
    router_.shut_down();
}

bool ZmqSideChannel::finished() const {
    return router_.finished() && asking_.empty() && closing_.empty();
}

}  // namespace sluice::engine
