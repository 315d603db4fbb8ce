// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include "engine/impl.h"

namespace sluice::engine {

namespace {

constexpr Duration kListenRetry = std::chrono::milliseconds(20);
constexpr Duration kSweep = std::chrono::milliseconds(5);

http::ServerOptions server_options(const EngineOptions& options) {
    http::ServerOptions server;
    server.field_lines = "Server: uvicorn\r\nVary: Origin\r\n";
    server.idle_timeout = options.keep_alive;
    server.body_bytes_max = options.body_bytes_max;
    return server;
}

}  // namespace

Engine::Impl::Impl(io::Loop& loop, EngineOptions options)
    : loop_(loop),
      options_(std::move(options)),
      rng_(options_.seed),
      context_{loop_,     options_, rng_,
               counters_, faults_,  Delegate<void(std::string_view)>::to<&Impl::die>(*this)},
      began_(loop.now()),
      address_(options_.listen),
      bootstrap_port_(options_.kv.bootstrap_port),
      timer_(Delegate<void()>::to<&Impl::on_timer>(*this)),
      death_(Delegate<void()>::to<&Impl::on_death>(*this)),
      clean_up_(Delegate<void()>::to<&Impl::clean_up>(*this)),
      sweep_(Delegate<void()>::to<&Impl::clean_up>(*this)) {
    for (const Fault& fault : options_.faults) faults_.add(fault);
}

Engine::Impl::~Impl() {
    death_.cancel();
    clean_up_.cancel();
    ASSERT(finished());
}

// -- start

Result<void> Engine::Impl::start() {
    ASSERT(phase_ == Phase::Down && !core_);
    Duration wait{0};
    for (const Fault& fault : faults_.take(FaultKind::SlowStart))
        wait = std::max(wait, fault.delay);
    core_wanted_ = true;
    if (wait > Duration::zero()) {
        loop_.arm(timer_, wait);
        return {};
    }
    TRY(start_core());
    if (!core_->registered()) {
        loop_.arm(timer_, kListenRetry);
        return {};
    }
    return open_listener();
}

Result<void> Engine::Impl::start_core() {
    core_ = std::make_unique<Core>(context_);
    core_wanted_ = false;
    const auto started = core_->start(bootstrap_port_);
    if (!started) {
        core_->stop();
        old_cores_.push_back(std::move(core_));
        core_wanted_ = true;
        loop_.arm(sweep_, kSweep);
        return started;
    }
    // A restart keeps the port.
    if (core_->bootstrap_address().valid()) bootstrap_port_ = core_->bootstrap_address().port();
    return {};
}

Result<void> Engine::Impl::open_listener() {
    const auto socket = loop_.io().listen(address_, false);
    if (!socket) return std::unexpected(socket.error());
    if (const auto bound = loop_.io().local_address(*socket)) address_ = *bound;
    server_ = std::make_unique<http::Server>(loop_, *this, server_options(options_),
                                             options_.connections_max);
    server_->add_listener(*socket);
    phase_ = Phase::Serving;
    return {};
}

void Engine::Impl::on_timer() {
    if (phase_ == Phase::Dying) return on_gone();
    if (phase_ != Phase::Down) return;
    // The old listeners may still be open: again until they are gone.
    if (core_wanted_ && !start_core()) return loop_.arm(timer_, kListenRetry);
    if (!core_->registered() || !open_listener()) loop_.arm(timer_, kListenRetry);
}

// -- faults of the whole engine

void Engine::Impl::add_fault(const Fault& fault) {
    switch (fault.kind) {
        case FaultKind::Refuse:
        case FaultKind::Restart:
        case FaultKind::Die:
            // At once, unless it is to wait for certain requests.
            if (fault.path.empty() && fault.count < 0 && fault.probability >= 1)
                return strike_whole_engine(fault);
            break;
        default:
            break;
    }
    faults_.add(fault);
}

void Engine::Impl::clear_faults() {
    faults_.clear();
    if (phase_ == Phase::Down && (core_ || core_wanted_)) loop_.arm(timer_, Duration::zero());
}

void Engine::Impl::strike_whole_engine(const Fault& fault) {
    if (fault.kind == FaultKind::Die) return die("a fault was asked for");
    if (phase_ != Phase::Serving) return;
    if (fault.kind == FaultKind::Restart) return restart(fault.delay);
    close_listener(false);
    phase_ = Phase::Down;
    if (fault.delay > Duration::zero()) loop_.arm(timer_, fault.delay);
}

void Engine::Impl::restart(Duration down) {
    ++restarts_;
    close_listener(true);
    core_->stop();
    old_cores_.push_back(std::move(core_));
    core_wanted_ = true;
    phase_ = Phase::Down;
    loop_.arm(timer_, down);
}

void Engine::Impl::close_listener(bool at_once) {
    if (!server_) return;
    if (at_once) {
        server_->shut_down();
    } else {
        server_->drain();
    }
    old_servers_.push_back(std::move(server_));
    loop_.arm(sweep_, kSweep);
}

// -- death: said at once, felt at the end of the turn, since whoever found out is still at work

void Engine::Impl::die(std::string_view reason) {
    if (phase_ == Phase::Dying || phase_ == Phase::Dead || phase_ == Phase::Stopped) return;
    context_.log("the engine core died: " + std::string(reason));
    phase_ = Phase::Dying;
    loop_.defer(death_);
}

void Engine::Impl::on_death() {
    if (phase_ != Phase::Dying) return;
    if (core_) core_->fail_all();
    loop_.arm(timer_, options_.death_time);
}

void Engine::Impl::on_gone() {
    phase_ = Phase::Dead;
    close_listener(true);
    if (!core_) return;
    core_->stop();
    old_cores_.push_back(std::move(core_));
}

// -- end

void Engine::Impl::stop() {
    if (phase_ == Phase::Stopped) return;
    phase_ = Phase::Stopped;
    timer_.cancel();
    death_.cancel();
    close_listener(true);
    if (core_) {
        core_->stop();
        old_cores_.push_back(std::move(core_));
    }
    core_wanted_ = false;
    for (auto& server : old_servers_) server->shut_down();
    loop_.arm(sweep_, kSweep);
}

bool Engine::Impl::finished() const {
    if (core_ || server_ || !generations_.empty()) return false;
    for (const auto& server : old_servers_)
        if (!server->finished()) return false;
    for (const auto& core : old_cores_)
        if (!core->finished()) return false;
    return true;
}

void Engine::Impl::clean_up() {
    old_generations_.clear();
    std::erase_if(old_servers_, [](const auto& server) { return server->finished(); });
    // Generations point into their core.
    if (generations_.empty())
        std::erase_if(old_cores_, [](const auto& core) { return core->finished(); });
    if (!old_servers_.empty() || !old_cores_.empty()) loop_.arm(sweep_, kSweep);
}

EngineState Engine::Impl::state() const {
    EngineState state;
    state.counters = counters_;
    if (core_) {
        state.scheduler = core_->scheduler_counts();
        state.connector = core_->connector_counts();
    }
    state.generations_live = static_cast<std::uint32_t>(generations_.size());
    state.connections = server_ ? static_cast<std::uint32_t>(server_->connections()) : 0;
    state.restarts = restarts_;
    return state;
}

const io::Address& Engine::Impl::bootstrap_address() const {
    static const io::Address kNone;
    return core_ ? core_->bootstrap_address() : kNone;
}

// -- the handle

Engine::Engine(io::Loop& loop, EngineOptions options)
    : impl_(std::make_unique<Impl>(loop, std::move(options))) {}
Engine::~Engine() = default;

Result<void> Engine::start() { return impl_->start(); }
void Engine::stop() { impl_->stop(); }
bool Engine::finished() const { return impl_->finished(); }
bool Engine::serving() const { return impl_->phase() == Impl::Phase::Serving; }
bool Engine::dead() const { return impl_->phase() == Impl::Phase::Dead; }
const io::Address& Engine::address() const { return impl_->address(); }
const io::Address& Engine::bootstrap_address() const { return impl_->bootstrap_address(); }
std::string Engine::engine_id(std::size_t rank) const { return impl_->engine_id(rank); }
const EngineOptions& Engine::options() const { return impl_->options(); }
EngineState Engine::state() const { return impl_->state(); }
void Engine::add_fault(const Fault& fault) { impl_->add_fault(fault); }
void Engine::clear_faults() { impl_->clear_faults(); }

}  // namespace sluice::engine
