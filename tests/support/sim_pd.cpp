// SPDX-License-Identifier: Apache-2.0
#include "support/sim_pd.h"

namespace sluice::test {

using namespace std::chrono_literals;

namespace {

std::string answer_of(int status, std::string_view type, std::string_view body) {
    return "HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: " + std::string(type) +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

std::string error_answer(int status) {
    return answer_of(status, "application/json",
                     R"({"error":{"message":"simulated","type":"T","param":null,"code":)" +
                         std::to_string(status) + "}}");
}

// The keeper's: /health, and /v1/models, which is not here.
void answer_probe(RawConnection& connection) {
    connection.send(answer_of(200, "application/json", "{}"));
    connection.next_request();
}

std::string chunk(std::string_view bytes) {
    char size[24];
    std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
    return size + std::string(bytes) + "\r\n";
}

std::string role_event() {
    return "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
           "\"finish_reason\":null}]}\n\n";
}

std::string content_event(std::uint64_t id, int n) {
    return "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"t" + std::to_string(id) +
           "." + std::to_string(n) + "\"},\"finish_reason\":null}]}\n\n";
}

}  // namespace

std::string expected_stream(std::uint64_t id, int events) {
    std::string out = role_event();
    for (int n = 0; n < events; ++n) out += content_event(id, n);
    return out + "data: [DONE]\n\n";
}

std::string expected_plain(std::uint64_t id) {
    std::string out = "{\"choices\":[{\"message\":{\"content\":\"";
    for (std::uint64_t n = 0; n < 20 + id % 400; ++n) out += "w" + std::to_string(id) + " ";
    return out + "\"}}]}";
}

std::string member_of(std::string_view body, std::string_view name) {
    const std::string key = "\"" + std::string(name) + "\":";
    const auto at = body.find(key);
    if (at == std::string_view::npos) return {};
    std::string_view rest = body.substr(at + key.size());
    if (!rest.empty() && rest.front() == '"') {
        rest.remove_prefix(1);
        return std::string(rest.substr(0, rest.find('"')));
    }
    return std::string(rest.substr(0, rest.find_first_of(",}")));
}

bool misbehave(RawConnection& connection, Rng& rng, const Misbehaviour& bad,
               std::string_view good) {
    const double dice = rng.unit();
    double edge = 0;
    const auto hit = [&](double share) { return dice < (edge += share); };
    if (hit(bad.hang)) return true;
    if (hit(bad.refuse_4xx)) {
        connection.send(error_answer(rng.chance(0.5) ? 400 : 404));
        connection.next_request();
        return true;
    }
    if (hit(bad.back_pressure)) {
        connection.send(error_answer(rng.chance(0.5) ? 429 : 503));
        connection.next_request();
        return true;
    }
    if (hit(bad.fail_5xx)) {
        connection.send(error_answer(rng.chance(0.8) ? 500 : 502));
        connection.next_request();
        return true;
    }
    if (hit(bad.close_early)) {
        connection.close(rng.chance(0.5));
        return true;
    }
    if (hit(bad.close_mid_head)) {
        connection.send(good.substr(0, 1 + rng.below(30)));
        connection.close_when_sent();
        return true;
    }
    if (hit(bad.garbage)) {
        std::string noise;
        for (std::uint64_t i = rng.between(1, 300); i > 0; --i)
            noise += static_cast<char>(rng.below(256));
        connection.send(noise);
        connection.close_when_sent();
        return true;
    }
    if (hit(bad.answer_twice)) {
        connection.send(good);
        connection.send(good);
        connection.next_request();
        return true;
    }
    if (hit(bad.close_mid_body)) {
        connection.send(good.substr(0, good.size() - 1 - rng.below(good.size() / 2)));
        connection.close_when_sent();
        return true;
    }
    return false;
}

// -- prefill

SimPrefill::SimPrefill(io::Loop& loop, Ledger& ledger, Rng& rng, const Misbehaviour& bad,
                       std::string engine_id, bool nixl)
    : ledger_(ledger),
      rng_(rng),
      bad_(bad),
      sender_(loop, ledger.kv, rng, std::move(engine_id)),
      nixl_(nixl),
      peer_(loop, [this](RawConnection& c, const RawRequest& r) { answer(c, r); }) {}

void Ledger::note_told(const Transfer& transfer) {
    former_lives += !transfer.told.empty() && !transfer.engine_id.empty() &&
                    transfer.told != transfer.engine_id;
}

void SimPrefill::answer(RawConnection& connection, const RawRequest& request) {
    if (request.method == "GET") return answer_probe(connection);
    const std::string id = member_of(request.body, "id");
    if (member_of(request.body, "max_tokens") != "1" ||
        member_of(request.body, "min_tokens") != "1")
        ledger_.violation("P was not asked for exactly one token: " + request.body.substr(0, 200));
    if (member_of(request.body, "stream") == "true") ledger_.violation("P was asked to stream");
    if (request.body.find("evil") != std::string::npos)
        ledger_.violation("a client's KV parameters reached P");
    if (member_of(request.body, "do_remote_decode") != "true")
        ledger_.violation("P without its parameters");

    std::string transfer =
        nixl_ ? "nixl-" + request.request_id : member_of(request.body, "transfer_id");
    Ledger::Transfer& entry = ledger_.transfers[transfer];
    if (++entry.prefills > 1) ledger_.violation("a transfer id was used twice on P: " + transfer);
    entry.prompt = id;
    entry.engine_id = sender_.engine_id();
    ledger_.note_told(entry);

    const std::string params =
        nixl_
            ? R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2]],"x":{"new":[1]},)"
              R"("transfer_id":")" +
                  transfer + "\",\"remote_engine_id\":\"" + sender_.engine_id() + "\"}"
            : std::string("null");
    const std::string good =
        answer_of(200, "application/json",
                  R"({"choices":[{"text":"a"}],"kv_transfer_params":)" + params + "}");
    const Duration delay = std::chrono::microseconds(rng_.below(20000));
    connection.after(delay, [this, &connection, good, transfer] {
        if (misbehave(connection, rng_, bad_, good)) return;
        ledger_.transfers[transfer].ready = true;
        if (!nixl_) sender_.ready(transfer);
        connection.send(good);
        connection.next_request();
    });
}

// -- decode

SimDecode::SimDecode(io::Loop& loop, Ledger& ledger, Rng& rng, const Misbehaviour& bad, int number)
    : ledger_(ledger),
      rng_(rng),
      bad_(bad),
      puller_(loop, ledger.kv, number),
      peer_(loop, [this](RawConnection& c, const RawRequest& r) { answer(c, r); }) {}

void SimDecode::answer(RawConnection& connection, const RawRequest& request) {
    if (request.method == "GET") return answer_probe(connection);
    const std::uint64_t id = std::strtoull(member_of(request.body, "id").c_str(), nullptr, 10);
    const bool stream = member_of(request.body, "stream") == "true";
    if (request.body.find("evil") != std::string::npos)
        ledger_.violation("a client's KV parameters reached D");
    const std::string transfer = member_of(request.body, "transfer_id");
    if (request.body.find("kv_transfer_params") == std::string::npos) {
        connection.after(1ms, [this, &connection, id, stream] { serve(connection, id, stream); });
        return;
    }
    Ledger::Transfer& entry = ledger_.transfers[transfer];
    if (++entry.decodes > 1) ledger_.violation("a transfer id was used twice on D: " + transfer);
    if (member_of(request.body, "do_remote_prefill") != "true")
        ledger_.violation("D without its parameters");
    const std::string bootstrap = member_of(request.body, "remote_bootstrap_addr");
    const std::string engine = member_of(request.body, "remote_engine_id");
    entry.told = engine;
    ledger_.note_told(entry);
    if (!bootstrap.empty()) {
        // As D's scheduler would: some time after the request has come.
        connection.after(std::chrono::microseconds(rng_.below(5000)),
                         [this, &connection, bootstrap, engine, transfer, id, stream] {
                             wait_for_pull(connection, puller_.pull(bootstrap, engine, transfer),
                                           transfer, id, stream);
                         });
        return;
    }
    connection.after(std::chrono::microseconds(rng_.below(5000)),
                     [this, &connection, transfer, id, stream] {
                         wait_for_prefill(connection, transfer, id, stream, 0);
                     });
}

// A pull waits for its prefill, as in vLLM, here for two seconds.
void SimDecode::wait_for_prefill(RawConnection& connection, std::string transfer, std::uint64_t id,
                                 bool stream, int polls) {
    const Ledger::Transfer& entry = ledger_.transfers[transfer];
    if (!entry.ready) {
        if (polls > 400) {
            connection.send(error_answer(500));
            connection.next_request();
            return;
        }
        connection.after(5ms, [this, &connection, transfer, id, stream, polls] {
            wait_for_prefill(connection, transfer, id, stream, polls + 1);
        });
        return;
    }
    if (entry.prompt != std::to_string(id)) ledger_.violation("D got another prompt's KV");
    serve(connection, id, stream);
}

void SimDecode::wait_for_pull(RawConnection& connection,
                              std::shared_ptr<SimPuller::Outcome> outcome, std::string transfer,
                              std::uint64_t id, bool stream) {
    if (*outcome == SimPuller::Outcome::Pending) {
        connection.after(4ms, [this, &connection, outcome, transfer, id, stream] {
            wait_for_pull(connection, outcome, transfer, id, stream);
        });
        return;
    }
    if (*outcome == SimPuller::Outcome::Failed) {
        connection.send(error_answer(500));
        connection.next_request();
        return;
    }
    if (ledger_.transfers[transfer].prompt != std::to_string(id))
        ledger_.violation("D got another prompt's KV");
    serve(connection, id, stream);
}

void SimDecode::serve(RawConnection& connection, std::uint64_t id, bool stream) {
    const std::string head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    if (!stream) {
        const std::string good = answer_of(200, "application/json", expected_plain(id));
        if (misbehave(connection, rng_, bad_, good)) return;
        connection.send(good);
        connection.next_request();
        return;
    }
    const std::string whole = head + chunk(expected_stream(id, kSimEvents)) + "0\r\n\r\n";
    if (rng_.chance(bad_.error_event)) {
        connection.send(head +
                        chunk(role_event() +
                              "data: {\"error\":{\"message\":\"KV load failed\",\"type\":"
                              "\"InternalServerError\",\"param\":null,\"code\":500}}\n\n") +
                        chunk("data: [DONE]\n\n") + "0\r\n\r\n");
        connection.next_request();
        return;
    }
    if (rng_.chance(bad_.no_content)) {
        connection.send(head + chunk(": keep-alive\n\n") + "0\r\n\r\n");
        connection.next_request();
        return;
    }
    if (misbehave(connection, rng_, bad_, whole)) return;
    connection.send(head);
    if (rng_.chance(0.3)) connection.send(chunk(": keep-alive\n\n"));
    connection.send(chunk(role_event()));
    const int cut_at =
        rng_.chance(bad_.close_mid_body) ? static_cast<int>(rng_.below(kSimEvents)) : -1;
    stream_events(connection, id, 0, cut_at);
}

void SimDecode::stream_events(RawConnection& connection, std::uint64_t id, int next, int cut_at) {
    if (next == cut_at) {
        connection.send(chunk(content_event(id, next)).substr(0, 20));
        connection.close_when_sent();
        return;
    }
    if (next == kSimEvents) {
        connection.send(chunk("data: [DONE]\n\n") + "0\r\n\r\n");
        connection.next_request();
        return;
    }
    connection.send(chunk(content_event(id, next)));
    connection.after(
        std::chrono::microseconds(rng_.below(3000)),
        [this, &connection, id, next, cut_at] { stream_events(connection, id, next + 1, cut_at); });
}

}  // namespace sluice::test
