// SPDX-License-Identifier: Apache-2.0
#include "at_proxy.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "http/head_collector.h"
#include "pd/routes.h"

namespace sluice::test {

namespace {

constexpr std::size_t kSmallHead = 2048;

bool has_body(const Verdict& verdict) { return verdict.framing != "none" && !verdict.body.empty(); }

// 404 or 405 if that is the answer.
int not_served(std::string_view method, std::string_view path) {
    const pd::Route* route = pd::find_route(path);
    if (route == nullptr) return 404;
    const bool fits = route->post ? method == "POST" : method == "GET" || method == "HEAD";
    return fits ? 0 : 405;
}

// 0: by a decode.
int served(const Verdict& verdict, std::string_view path) {
    if (verdict.method != "POST") return 200;
    const bool two_legs = pd::find_route(path)->serve == pd::Serve::PrefillDecode;
    return two_legs && !nlohmann::json::accept(verdict.body) ? 400 : 0;
}

// Whether the first request's head stands, so that it is its body that is refused or missing.
std::optional<http::RequestHead> good_head(const std::string& bytes) {
    static BufferPool pool{64 << 20};
    BufferRef buffer = pool.allocate(bytes.size());
    std::memcpy(buffer.data(), bytes.data(), bytes.size());
    http::HeadCollector collector;
    const auto state =
        collector.feed({std::move(buffer), 0, static_cast<std::uint32_t>(bytes.size())}, pool);
    if (state != http::HeadCollector::State::Complete) return std::nullopt;
    http::RequestHead head;
    if (http::parse_request_head(collector.take_head(), head)) return std::nullopt;
    if (head.framing == http::Framing::Length && head.content_length > kVectorBodyMax)
        return std::nullopt;
    return head;
}

}  // namespace

AtProxy::AtProxy(const HttpVector& vector) : bytes(vector.bytes) {
    std::string first = "/";
    const auto serve_as = [&](std::string_view line, std::string_view served) {
        if (!bytes.starts_with(line) || bytes.find("\r\n\r\n") > kSmallHead) return;
        bytes = std::string(served) + bytes.substr(line.size());
        first = served.substr(served.find('/'), served.size() - served.find('/') - 1);
    };
    serve_as("POST / ", "POST /tokenize ");
    serve_as("GET / ", "GET /health ");
    serve_as("HEAD / ", "HEAD /health ");

    for (const Verdict& verdict : vector.verdicts) {
        const bool is_first = &verdict == &vector.verdicts.front();
        may_continue |= verdict.expect;
        Expected expected;
        switch (verdict.kind) {
            case Verdict::Kind::Accept: {
                expected.path = is_first && verdict.path == "/" ? first : verdict.path;
                expected.to_head = verdict.method == "HEAD";
                expected.body = verdict.body;
                expected.status = not_served(verdict.method, expected.path);
                closes = !verdict.keep || (expected.status != 0 && has_body(verdict));
                may_reset = !verdict.keep;
                if (expected.status == 0) expected.status = served(verdict, expected.path);
                break;
            }
            case Verdict::Kind::Reject:
            case Verdict::Kind::More: {
                int early = 0;
                if (const auto head = is_first ? good_head(bytes) : std::nullopt)
                    early = not_served(head->method, head->path);
                incomplete = verdict.kind == Verdict::Kind::More && early == 0;
                if (incomplete) return;
                expected.status = early != 0 ? early : verdict.status;
                closes = true;
                break;
            }
            case Verdict::Kind::Cut:
                break;
        }
        answers.push_back(std::move(expected));
        if (closes) return;
    }
}

std::vector<bool> AtProxy::heads() const {
    std::vector<bool> heads;
    for (const Expected& each : answers) heads.push_back(each.to_head);
    return heads;
}

std::vector<Answer> final_answers(std::string_view received, bool ended, const AtProxy& expected) {
    auto answers = parse_answers(received, ended, expected.heads());
    std::erase_if(answers, [](const Answer& answer) { return answer.status == 100; });
    return answers;
}

}  // namespace sluice::test
