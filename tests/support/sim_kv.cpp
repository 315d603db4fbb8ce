// SPDX-License-Identifier: Apache-2.0
#include "support/sim_kv.h"

#include <algorithm>

#include "kv/bootstrap.h"
#include "mooncake/msgpack.h"

namespace sluice::test {

using namespace std::chrono_literals;

namespace {

constexpr Duration kAbort = 3s;     // how long a prefill lets a pull wait
constexpr Duration kPatience = 6s;  // ... and a decode
constexpr Duration kTick = 1ms;

io::Address parse_address(std::string_view url) {
    url.remove_prefix(url.find("//") + 2);
    url = url.substr(0, url.find('/'));
    const auto colon = url.rfind(':');
    const auto port =
        static_cast<std::uint16_t>(std::atoi(std::string(url.substr(colon + 1)).c_str()));
    return *io::Address::from_ip(url.substr(0, colon), port);
}

}  // namespace

// -- prefill

SimSender::SimSender(io::Loop& loop, KvLedger& ledger, Rng& rng, std::string engine_id)
    : loop_(loop),
      ledger_(ledger),
      rng_(rng),
      engine_id_(std::move(engine_id)),
      router_(loop, *this),
      bootstrap_(loop,
                 [this](RawConnection& connection, const RawRequest&) {
                     kv::BootstrapEntries entries;
                     entries[0].engine_id = engine_id_;
                     entries[0].workers[0][0] = worker_;
                     const std::string body = kv::write_bootstrap_entries(entries);
                     connection.send("HTTP/1.1 200 OK\r\nContent-Length: " +
                                     std::to_string(body.size()) + "\r\n\r\n" + body);
                     connection.next_request();
                 }),
      tick_(Delegate<void()>::to<&SimSender::tick>(*this)) {}

void SimSender::listen(const io::Address& worker, const io::Address& bootstrap) {
    worker_ = "tcp://" + worker.text();
    router_.add_listener(*loop_.io().listen(worker, false));
    bootstrap_.listen(bootstrap);
}

void SimSender::ready(const std::string& transfer) {
    KvEntry& entry = ledger_.transfers[transfer];
    entry.ready = entry.held = true;
    own_[transfer] = true;
}

void SimSender::restart(std::string engine_id) {
    engine_id_ = std::move(engine_id);
    for (const Waiting& each : waiting_) router_.close(each.peer);
    waiting_.clear();
    for (const auto& [transfer, known] : own_)
        ledger_.transfers[transfer].held = ledger_.transfers[transfer].ready = false;
    own_.clear();
}

void SimSender::on_message(Handle peer, std::uint32_t, std::string_view message) {
    const auto pull = mooncake::read_pull(message);
    if (!pull) return ledger_.violations.push_back("a prefill got what is no pull");
    if (pull->member("kv_caches_base_addr").empty())
        ledger_.violations.push_back("a prefill got a pull without the decode's layout");
    for (const mooncake::PullItem& item : pull->items) {
        Waiting& waiting = waiting_.emplace_back();
        waiting.peer = peer;
        waiting.request = item.request;
        waiting.transfer = item.transfer;
        waiting.empty = mooncake::block_count(item.blocks) == 0;
        waiting.last = &item == &pull->items.back();
        waiting.due = loop_.now() + std::chrono::microseconds(rng_.below(2000));
        waiting.limit = loop_.now() + kAbort;
    }
    if (!tick_.armed()) loop_.arm(tick_, kTick);
}

void SimSender::on_gone(Handle peer) {
    std::erase_if(waiting_, [&](const Waiting& each) { return each.peer == peer; });
}

// One item a message in these simulations, so each answer is its pull's last.
void SimSender::tick() {
    for (auto at = waiting_.begin(); at != waiting_.end();) {
        KvEntry& entry = ledger_.transfers[at->transfer];
        const std::string_view request = at->request;
        if (own_.contains(at->transfer) && entry.held && loop_.now() >= at->due) {
            if (entry.pulled && !at->empty)
                ledger_.violations.push_back("blocks were pulled twice: " + at->transfer);
            entry.held = false;
            if (at->empty) ++ledger_.released;
            entry.pulled = entry.pulled || !at->empty;
            router_.send(at->peer, mooncake::write_response(mooncake::Status::Finish,
                                                            std::span(&request, 1), {}, ""));
        } else if (loop_.now() >= at->limit) {
            if (!own_.contains(at->transfer)) ++ledger_.unknown;
            router_.send(at->peer, mooncake::write_response(mooncake::Status::Finish, {},
                                                            std::span(&request, 1), "Timeout"));
        } else {
            ++at;
            continue;
        }
        at = waiting_.erase(at);
    }
    if (!waiting_.empty()) loop_.arm(tick_, kTick);
}

void SimSender::stop() {
    tick_.cancel();
    waiting_.clear();
    router_.shut_down();
    bootstrap_.stop();
}

bool SimSender::finished() const { return router_.finished() && bootstrap_.finished(); }

// -- decode

class SimPuller::Job final : public mooncake::PeerEvents {
public:
    Job(SimPuller& puller, std::string transfer, std::uint64_t number)
        : outcome(std::make_shared<Outcome>(Outcome::Pending)),
          puller_(puller),
          transfer_(std::move(transfer)),
          request_("cmpl-" + std::to_string(number)),
          peer_(puller.loop_, mooncake::SocketType::Dealer, *this),
          patience_(Delegate<void()>::to<&Job::on_patience>(*this)) {}

    const std::shared_ptr<Outcome> outcome;
    std::string engine_id;

    void ask(const std::string& worker) {
        std::string message;
        mooncake::MsgpackWriter w(message);
        w.map(6).string("remote_hostname").string("d" + std::to_string(puller_.number_));
        w.string("remote_port").number(15000).string("remote_tp_size").number(1);
        w.string("remote_tp_rank").number(0).string("kv_caches_base_addr").array(1).number(4096);
        w.string("req_blocks").map(1).string(request_).array(2).string(transfer_).array(1).array(1);
        w.number(7);
        asked_ = true;
        ++puller_.ledger_.pulls;
        open_ = peer_.connect(parse_address(worker)).has_value();
        puller_.loop_.arm(patience_, kPatience);
        if (open_) peer_.send(message);
    }
    void fail() { end(Outcome::Failed, puller_.ledger_.lost, asked_); }
    void stop() {
        patience_.cancel();
        if (*outcome == Outcome::Pending)
            fail();
        else if (open_)
            peer_.close_now();
    }
    bool open() const { return open_; }

private:
    void on_peer_message(mooncake::Peer&, std::string_view bytes) override {
        const auto response = mooncake::read_response(bytes);
        KvLedger& ledger = puller_.ledger_;
        if (!response) return ledger.violations.push_back("a decode got what is no response");
        if (*outcome != Outcome::Pending)
            return ledger.violations.push_back("a pull was answered twice");
        if (response->ok.size() + response->failed.size() != 1 ||
            response->status != mooncake::Status::Finish)
            ledger.violations.push_back("a pull of one request was answered with something else");
        const bool ok = !response->ok.empty();
        if (ok && !ledger.transfers[transfer_].pulled)
            ledger.violations.push_back("a decode was told of blocks that nobody sent");
        end(ok ? Outcome::Ok : Outcome::Failed, ok ? ledger.ok : ledger.failed, true);
    }
    void on_peer_gone(mooncake::Peer&) override {
        // ZeroMQ would not say; the decode's patience ends it.
        gone_ = true;
    }
    void on_peer_closed(mooncake::Peer&) override {
        open_ = false;
        if (*outcome != Outcome::Pending) puller_.over(*this);
    }
    void on_patience() {
        end(Outcome::Failed, gone_ ? puller_.ledger_.lost : puller_.ledger_.given_up, true);
    }
    void end(Outcome how, std::uint64_t& count, bool counts) {
        *outcome = how;
        if (counts) ++count;
        patience_.cancel();
        if (open_) return peer_.close_now();
        puller_.over(*this);
    }

    SimPuller& puller_;
    const std::string transfer_;
    const std::string request_;
    mooncake::Peer peer_;
    Timer patience_;
    bool asked_ = false;
    bool open_ = false;
    bool gone_ = false;
};

SimPuller::SimPuller(io::Loop& loop, KvLedger& ledger, int number)
    : loop_(loop),
      ledger_(ledger),
      number_(number),
      calls_(loop),
      purge_(Delegate<void()>::to<&SimPuller::purge>(*this)) {}

SimPuller::~SimPuller() = default;

std::shared_ptr<SimPuller::Outcome> SimPuller::pull(const std::string& bootstrap,
                                                    const std::string& engine_id,
                                                    const std::string& transfer) {
    auto job = std::make_shared<Job>(*this, transfer, next_++);
    job->engine_id = engine_id;
    jobs_.push_back(job);
    const auto outcome = job->outcome;
    if (const auto known = known_.find(engine_id); known != known_.end()) {
        job->ask(known->second);
    } else {
        look_up(job, bootstrap);
    }
    return outcome;
}

void SimPuller::look_up(const std::shared_ptr<Job>& job, const std::string& bootstrap) {
    http::CallQuestion question;
    question.address = parse_address(bootstrap);
    question.host = question.address.text();
    const auto path = bootstrap.find('/', 7);
    question.path = (path == std::string::npos ? "" : bootstrap.substr(path)) + "/query";
    question.timeout = 2s;
    calls_.start(question, [this, weak = std::weak_ptr(job)](std::optional<http::CallAnswer> got) {
        const auto asking = weak.lock();
        if (!asking || *asking->outcome != Outcome::Pending) return;
        if (got && got->status == 200)
            if (const auto entries = kv::read_bootstrap_entries(got->body))
                for (const auto& [dp, engine] : *entries)
                    if (engine.workers.contains(0))
                        known_.emplace(engine.engine_id, engine.workers.at(0).at(0));
        const auto found = known_.find(asking->engine_id);
        if (found == known_.end()) return asking->fail();
        asking->ask(found->second);
    });
}

void SimPuller::over(Job& job) {
    const auto found =
        std::ranges::find_if(jobs_, [&](const auto& each) { return each.get() == &job; });
    if (found == jobs_.end()) return;
    ended_.push_back(std::move(*found));
    jobs_.erase(found);
    loop_.defer(purge_);
}

void SimPuller::stop() {
    const std::list<std::shared_ptr<Job>> all = jobs_;
    for (const auto& job : all) job->stop();
    calls_.stop();
}

bool SimPuller::finished() const { return jobs_.empty() && calls_.finished(); }

}  // namespace sluice::test
