// SPDX-License-Identifier: Apache-2.0
// What tests of the proxy's parts share: a request as it came from a client, instances, and the
// text of a message.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "http/head_parser.h"
#include "json/scan.h"
#include "mem/slice_queue.h"
#include "mem/text_arena.h"
#include "pd/body_scan.h"
#include "pd/leg_message.h"

namespace sluice::pd::test {

inline Slice slice_of(BufferPool& pool, std::string_view text) {
    BufferRef buffer = pool.allocate(std::max<std::size_t>(text.size(), 1));
    std::memcpy(buffer.data(), text.data(), text.size());
    return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
}

inline std::string text_of(const SliceQueue& queue) {
    std::string text;
    for (std::size_t i = 0; i < queue.count(); ++i) text += queue[i].view();
    return text;
}

inline std::string body_of(const std::string& message) {
    return message.substr(message.find("\r\n\r\n") + 4);
}

inline fleet::Instance instance_at(fleet::Role role, const std::string& authority) {
    fleet::Instance instance;
    instance.role = role;
    instance.url = "http://" + authority;
    instance.host_header = authority;
    instance.address = *io::Address::from_ip("10.0.0.1", 8010);
    instance.state = std::make_shared<fleet::InstanceState>();
    instance.bootstrap_url = "http://10.0.0.1:8998";
    return instance;
}

// One request, parsed and scanned.
class Request {
public:
    explicit Request(std::string_view body, json::Api api = json::Api::Chat,
                     std::string_view fields = {})
        : api_(api) {
        std::string raw = "POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: front\r\n";
        raw += fields;
        raw += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
        const auto error = http::parse_request_head(slice_of(pool, raw), head);
        ASSERT(!error);
        body_ = slice_of(pool, body);
        scanned = scan_body(scanner, body_.view(), api, scan);
    }

    std::string prefill(const Dialect& dialect, const AttemptFacts& attempt = {},
                        const LegHeadFacts& facts = {"id-1", {}, false, nullptr}) {
        return text_of(make_prefill_message(texts, head, body_, scan, api_, instance, facts,
                                            dialect, attempt));
    }
    std::string decode(const Dialect* dialect, const AttemptFacts& attempt = {},
                       std::string_view prefill_answer = {},
                       const LegHeadFacts& facts = {"id-1", {}, false, nullptr}) {
        return text_of(make_decode_message(texts, head, body_, scan, instance, facts, dialect,
                                           attempt, prefill_answer));
    }
    std::string plain(const LegHeadFacts& facts = {"id-1", {}, false, nullptr}) {
        return text_of(make_plain_message(texts, head, body_, instance, facts));
    }

    BufferPool pool{64 << 20};
    TextArena texts{pool};
    json::Scanner scanner;
    http::RequestHead head;
    BodyScan scan;
    std::expected<void, std::string> scanned;
    fleet::Instance instance = instance_at(fleet::Role::Prefill, "p:8010");

private:
    json::Api api_;
    Slice body_;
};

}  // namespace sluice::pd::test
