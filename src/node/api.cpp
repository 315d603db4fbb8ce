// SPDX-License-Identifier: Apache-2.0
// The public C++ API (include/sluice/kv.h): a node on a thread and a loop of its own.
//
// Calls are handed to that thread through a bounded queue and waited for; a call from the thread
// itself (a callback) runs at once. The queue's lock is held for a push or a swap: control plane.
#include <sluice/kv.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/cpu.h"
#include "io/uring/uring_io.h"
#include "node/data_plane.h"
#include "node/explain.h"
#include "node/metrics.h"

namespace sluice::kv {

namespace {

constexpr std::chrono::seconds kStopWait{5};  // for peers' bytes that are on their way
constexpr std::size_t kBufferBytesMax = 256UL << 20;

Status closed() { return {Code::Closed, "the node is shutting down"}; }

Outcome<Token> token_of(const std::string& text) {
    Token token{};
    if (text.size() > token.size())
        return refuse(Code::BadOptions,
                      "the token has " + std::to_string(text.size()) + " bytes; 32 is the most");
    for (std::size_t i = 0; i < text.size(); ++i) token[i] = static_cast<std::byte>(text[i]);
    return token;
}

}  // namespace

struct PullHandle::State {
    std::mutex mutex;
    std::condition_variable ended;
    std::optional<PullResult> result;
    std::weak_ptr<int> node;             // expired: it has gone, and with it every pull has ended
    std::function<void()> ask_to_abort;  // thread-safe while the node lives
};

struct Node::Impl final : node::NodeEvents {
    explicit Impl(const Options& given) : options(given) {}
    ~Impl() = default;

    // -- on the node's thread
    void run();
    void take_commands();
    void on_lease_ended(const std::string& transfer, const BlocksByGroup& blocks,
                        LeaseEnd end) override {
        if (options.on_lease_ended && !stopping)
            options.on_lease_ended(transfer, blocks, static_cast<LeaseEnding>(end));
    }
    void on_pull_ended(node::PullId pull, const node::PullResult& result) override;

    // -- from any thread
    // Runs `work` on the node's thread and waits for it. False: too many calls wait, or it is
    // closed.
    bool call(const std::function<void()>& work);
    bool post(std::function<void()> work);

    Options options;
    std::string address;
    std::unique_ptr<io::UringIo> io;
    std::unique_ptr<io::Loop> loop;
    std::unique_ptr<node::DataPlane> plane;
    std::unique_ptr<node::Node> node;
    std::shared_ptr<int> alive = std::make_shared<int>(0);
    std::unordered_map<node::PullId, std::shared_ptr<PullHandle::State>> pulls;  // node's thread
    std::mutex mutex;
    std::deque<std::function<void()>> commands;
    bool closing = false;  // no more commands
    bool stopping = false;
    std::atomic<std::thread::id> home{};
    std::thread thread;
};

void Node::Impl::on_pull_ended(node::PullId pull, const node::PullResult& result) {
    const auto found = pulls.find(pull);
    if (found == pulls.end()) return;
    const auto state = std::move(found->second);
    pulls.erase(found);
    PullResult told;
    told.status = result.status;
    told.landed = result.landed;
    told.bytes = result.bytes;
    told.until_known = result.until_known;
    told.took = result.took;
    if (result.slot < node->slots()) told.transport = node->slot(result.slot).name;
    std::lock_guard lock(state->mutex);
    state->result = std::move(told);
    state->ended.notify_all();
}

bool Node::Impl::post(std::function<void()> work) {
    {
        std::lock_guard lock(mutex);
        if (closing || commands.size() >= limits::kCommandsMax) return false;
        commands.push_back(std::move(work));
    }
    io->wake();
    return true;
}

bool Node::Impl::call(const std::function<void()>& work) {
    if (std::this_thread::get_id() == home.load()) {
        work();
        return true;
    }
    std::promise<void> done;
    auto waited = done.get_future();
    if (!post([&] {
            work();
            done.set_value();
        }))
        return false;
    waited.wait();  // what is in the queue is always run
    return true;
}

void Node::Impl::take_commands() {
    std::deque<std::function<void()>> taken;
    {
        std::lock_guard lock(mutex);
        taken.swap(commands);
    }
    for (const auto& work : taken) work();
}

void Node::Impl::run() {
    home.store(std::this_thread::get_id());
    name_this_thread("sluice-kv");
    while (!stopping) {
        loop->run_turn(kForever);
        take_commands();
    }
    node->stop();
    const Instant until = MonotonicClock::now() + kStopWait;
    while (!node->finished() && MonotonicClock::now() < until)
        loop->run_turn(std::chrono::milliseconds(10));
    {
        std::lock_guard lock(mutex);
        closing = true;
    }
    take_commands();
    plane->detach();
}

Node::Node(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Outcome<std::unique_ptr<Node>> Node::create(const Options& options,
                                            std::span<const Region> regions) {
    const auto token = token_of(options.token);
    if (!token) return std::unexpected(token.error());
    const auto control = io::Address::from_ip(options.host, options.port);
    if (!control) return refuse(Code::BadOptions, "host \"" + options.host + "\" is no IP address");
    auto impl = std::make_unique<Impl>(options);
    auto io = io::UringIo::create(
        {.capabilities = io::probe_uring(), .buffer_bytes_max = kBufferBytesMax});
    if (!io) return refuse(Code::System, "no io_uring here: " + describe(io.error()));
    impl->io = std::move(*io);
    impl->loop = std::make_unique<io::Loop>(*impl->io);

    node::NodeOptions node_options;
    node_options.role = options.role;
    node_options.engine_id = options.engine_id;
    node_options.rank = options.rank;
    node_options.kv_heads = options.kv_heads;
    node_options.token = *token;
    node_options.node = random_seed() | 1;
    node_options.abort_timeout = options.abort_timeout;
    node_options.log_transfer = options.log;
    node::DataPlaneOptions plane_options;
    plane_options.senders.threads = options.sender_threads;
    plane_options.senders.cpus = options.sender_cpus;
    plane_options.token = *token;
    plane_options.node = node_options.node;
    plane_options.checksum = options.checksum;
    plane_options.transports = options.transports;
    plane_options.listen_host =
        options.host.contains(':') ? "[" + options.host + "]" : options.host;
    auto plane = node::DataPlane::start(*impl->loop, plane_options);
    if (!plane) return std::unexpected(plane.error());
    impl->plane = std::move(*plane);
    impl->node = std::make_unique<node::Node>(*impl->loop, node_options, *impl);
    impl->plane->attach(*impl->node);
    if (Status status = impl->node->start(regions, *control); !status.ok())
        return std::unexpected(std::move(status));
    impl->address = impl->node->address().text();
    Impl* const running = impl.get();
    std::unique_ptr<Node> node(new Node(std::move(impl)));
    running->thread = std::thread([running] { running->run(); });
    return node;
}

Node::~Node() {
    if (!impl_->thread.joinable()) return;
    (void)impl_->post([impl = impl_.get()] { impl->stopping = true; });
    impl_->thread.join();
    impl_->alive.reset();
    // What did not end in time: its peers' bytes are dropped with the transports.
    for (auto& [id, state] : impl_->pulls) {
        std::lock_guard lock(state->mutex);
        state->result = PullResult{closed(), {}, 0, {}, {}, {}};
        state->ended.notify_all();
    }
}

const std::string& Node::address() const { return impl_->address; }

Status Node::publish(const std::string& transfer, BlocksByGroup blocks, std::uint32_t layers_end) {
    Status status{Code::LimitReached, "kCommandsMax calls wait for the node's thread"};
    (void)impl_->call(
        [&] { status = impl_->node->publish(transfer, std::move(blocks), layers_end); });
    return status;
}

Status Node::more_layers(const std::string& transfer, std::uint32_t layers_end) {
    Status status{Code::LimitReached, "kCommandsMax calls wait for the node's thread"};
    (void)impl_->call([&] { status = impl_->node->more_layers(transfer, layers_end); });
    return status;
}

void Node::release(const std::string& transfer) {
    (void)impl_->call([&] { impl_->node->release(transfer); });
}

Outcome<PullHandle> Node::pull(const std::string& transfer, const Producer& producer,
                               BlocksByGroup blocks, const PullOptions& options) {
    node::PullRequest request;
    request.transfer = transfer;
    request.producer.engine_id = producer.engine_id;
    for (const auto& stages : producer.workers) {
        auto& row = request.producer.workers.emplace_back();
        for (const std::string& text : stages) {
            const auto address = node::node_address(text);
            if (!address) return std::unexpected(address.error());
            row.push_back(*address);
        }
        if (row.size() != request.producer.workers.front().size())
            return refuse(Code::BadOptions, "every tp rank has as many pp ranks as the first");
    }
    request.blocks = std::move(blocks);
    request.deadline = options.deadline;
    request.priority = static_cast<transport::Priority>(options.urgency);
    PullHandle handle;
    handle.state_ = std::make_shared<PullHandle::State>();
    handle.state_->node = impl_->alive;
    Status status{Code::LimitReached, "kCommandsMax calls wait for the node's thread"};
    (void)impl_->call([&] {
        const auto id = impl_->node->pull(std::move(request));
        status = id ? Status{} : id.error();
        if (!id) return;
        impl_->pulls.emplace(*id, handle.state_);
        handle.state_->ask_to_abort = [impl = impl_.get(), pull = *id] {
            (void)impl->call([&] { impl->node->abort(pull); });
        };
    });
    if (!status.ok()) return std::unexpected(std::move(status));
    return handle;
}

std::string Node::metrics() const {
    std::string text;
    (void)impl_->call([&] { text = node::metrics_text(impl_->node->metrics(), *impl_->plane); });
    return text;
}

Outcome<std::string> Node::explain(const std::string& text) const {
    const auto address = node::node_address(text);
    if (!address) return std::unexpected(address.error());
    const auto peer = node::ask_node(*address, impl_->node->hello().token, limits::kHelloTimeout);
    if (!peer) return std::unexpected(peer.error());
    return node::explain(*peer, impl_->node->hello()).text();
}

// -- pulls

std::optional<PullResult> PullHandle::wait_for(std::chrono::milliseconds time) const {
    std::unique_lock lock(state_->mutex);
    state_->ended.wait_for(lock, time, [&] { return state_->result.has_value(); });
    return state_->result;
}

PullResult PullHandle::abort() const {
    {
        std::lock_guard lock(state_->mutex);
        if (state_->result) return *state_->result;
    }
    if (!state_->node.expired()) state_->ask_to_abort();
    std::unique_lock lock(state_->mutex);
    state_->ended.wait(lock, [&] { return state_->result.has_value(); });
    return *state_->result;
}

}  // namespace sluice::kv
