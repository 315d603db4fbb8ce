// SPDX-License-Identifier: Apache-2.0

// Request and response heads, through the collector and the parsers. The first byte chooses between
// them and seeds the cuts. Oracles:
// * any cutting gives the verdicts, and leaves the rest, of the whole;
// * what is accepted keeps the promises that the rest of the program rests on;
// * written anew as the proxy does it, it is accepted and gives the same model, and writing that
// gives the same bytes.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "http/head_collector.h"
#include "http/head_guard.h"
#include "http/head_writer.h"

namespace {

using namespace sluice;
using namespace sluice::http;

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

enum class Kind : std::uint8_t { Request, Response, ResponseToHead };

Slice slice_of(BufferPool& pool, std::string_view text) {
    BufferRef buffer = pool.allocate(text.size());
    std::memcpy(buffer.data(), text.data(), text.size());
    // Reading on behind the bytes finds these.
    std::memset(buffer.data() + text.size(), '\n', limits::kBufferSlack);
    return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
}

void check_fields(const FieldList& fields) {
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const Field field = fields[i];
        require(is_token(field.name), "a name that is no token");
        require(field.id == identify(field.name), "a name with another's id");
        require(field.value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos,
                "a value with a line end or NUL");
        const bool padded =
            !field.value.empty() && (field.value.front() == ' ' || field.value.back() == ' ' ||
                                     field.value.front() == '\t' || field.value.back() == '\t');
        require(!padded, "a value that is not trimmed");
    }
}

void check_framing(Framing framing, const FieldList& fields) {
    const std::size_t lengths = fields.count(FieldId::ContentLength);
    const std::size_t codings = fields.count(FieldId::TransferEncoding);
    require(lengths + codings <= 1, "two framings");
    if (framing == Framing::Length) require(lengths == 1, "a length from nowhere");
    if (framing == Framing::Chunked)
        require(equals_ignoring_case(*fields.find(FieldId::TransferEncoding), "chunked"),
                "chunks from nowhere");
}

std::string text_of(const FieldList& fields) {
    std::string text;
    for (std::size_t i = 0; i < fields.size(); ++i)
        text += std::string(fields[i].name) + ": " + std::string(fields[i].value) + "\r\n";
    return text;
}

void write_framing(TextWriter& writer, Framing framing, std::uint64_t length) {
    if (framing == Framing::Length) write_field(writer, "Content-Length", length);
    if (framing == Framing::Chunked) write_field(writer, "Transfer-Encoding", "chunked");
}

Slice write(TextArena& arena, const RequestHead& head) {
    TextWriter writer(arena);
    writer.append(head.method);
    writer.append(' ');
    writer.append(head.path);
    if (!head.query.empty()) {
        writer.append('?');
        writer.append(head.query);
    }
    writer.append(" HTTP/1.1\r\nHost: upstream\r\n");
    copy_fields(writer, head.fields, kHopByHop | FieldSet{FieldId::Host});
    write_framing(writer, head.framing, head.content_length);
    writer.append("\r\n");
    return writer.finish();
}

Slice write(TextArena& arena, const ResponseHead& head) {
    TextWriter writer(arena);
    write_status_line(writer, head.status);
    copy_fields(writer, head.fields, kHopByHop);
    write_framing(writer, head.framing, head.content_length);
    writer.append("\r\n");
    return writer.finish();
}

void check_rewriting(TextArena& arena, const RequestHead& head) {
    const Slice bytes = write(arena, head);
    RequestHead again;
    require(!parse_request_head(bytes, again), "what was written is refused");
    require(again.method == head.method && again.path == head.path && again.query == head.query,
            "written anew, it asks for something else");
    require(again.framing == head.framing && again.content_length == head.content_length,
            "written anew, it has another body");
    require(again.keep_alive && !again.expects_continue,
            "written anew, it has what concerned another connection");
    require(write(arena, again).view() == bytes.view(), "writing is not stable");
}

void check_rewriting(TextArena& arena, const ResponseHead& head, bool to_head) {
    const Slice bytes = write(arena, head);
    ResponseHead again;
    require(!parse_response_head(bytes, to_head, again), "what was written is refused");
    require(again.status == head.status, "written anew, it has another status");
    require(again.framing == head.framing, "written anew, it has another framing");
    if (head.framing == Framing::Length)
        require(again.content_length == head.content_length, "written anew, it has another length");
    require(write(arena, again).view() == bytes.view(), "writing is not stable");
}

// Everything that was found, as text. Stops at the first refusal, and behind a head with a body.
class Reader {
public:
    Reader(BufferPool& pool, Kind kind) : pool_(pool), arena_(pool), kind_(kind) {}

    std::string found;

    void feed(std::string_view piece) {
        if (over_) {
            found += piece;
            return;
        }
        Slice rest = slice_of(pool_, piece);
        while (!rest.empty()) rest = feed(std::move(rest));
    }

    void end() {
        if (!over_) found += collector_.started() ? "and something unfinished" : "and nothing";
    }

private:
    Slice feed(Slice bytes) {
        switch (collector_.feed(std::move(bytes), pool_)) {
            case HeadCollector::State::NeedMore:
                return {};
            case HeadCollector::State::Bad:
                return refuse(collector_.error().status);
            case HeadCollector::State::Complete:
                break;
        }
        Slice head = collector_.take_head();
        Slice rest = collector_.take_rest();
        require(!collector_.started(), "the collector holds what it gave away");
        const int status =
            kind_ == Kind::Request ? take_request(std::move(head)) : take_response(std::move(head));
        if (status != 0) return refuse(status);
        if (!over_) return rest;
        found += rest.view();
        return {};
    }

    // What follows is not looked at, so the rest depends on the cuts.
    Slice refuse(int status) {
        found += "refused " + std::to_string(status);
        over_ = refused_ = true;
        return {};
    }

    int take_request(Slice bytes) {
        RequestHead head;
        if (const auto error = parse_request_head(std::move(bytes), head)) {
            require(error->status >= 400 && error->status < 600, "a refusal without a status");
            return error->status;
        }
        require(is_token(head.method), "a method that is no token");
        require(head.path == "*" || head.path.starts_with('/'), "a path that is none");
        require(head.path.find_first_of("? #\t") == std::string_view::npos,
                "a path with more than a path");
        require(head.minor_version == 1 || !head.expects_continue, "an expectation in HTTP/1.0");
        require(head.minor_version == 0 || head.fields.count(FieldId::Host) == 1, "without a Host");
        require(head.framing != Framing::UntilClose, "a request until close");
        check_fields(head.fields);
        check_framing(head.framing, head.fields);
        check_rewriting(arena_, head);
        found += std::string(head.method) + " " + std::string(head.path) + "?" +
                 std::string(head.query) + " " + std::to_string(head.minor_version) +
                 std::to_string(head.keep_alive) + std::to_string(head.expects_continue) +
                 std::to_string(static_cast<int>(head.framing)) + " " +
                 std::to_string(head.content_length) + "\r\n" + text_of(head.fields);
        over_ = head.framing != Framing::None || !head.keep_alive;
        return 0;
    }

    int take_response(Slice bytes) {
        const bool to_head = kind_ == Kind::ResponseToHead;
        ResponseHead head;
        if (const auto error = parse_response_head(std::move(bytes), to_head, head)) {
            require(error->status == 502, "a refused answer that is not 502");
            return 502;
        }
        require(head.status >= 100 && head.status < 600, "a status that is none");
        const bool bodiless =
            to_head || head.status < 200 || head.status == 204 || head.status == 304;
        require(bodiless == (head.framing == Framing::None),
                "a body where none may be, or none where one may");
        require(head.framing != Framing::UntilClose || !head.keep_alive,
                "until close, and kept alive");
        check_fields(head.fields);
        check_framing(head.framing, head.fields);
        check_rewriting(arena_, head, to_head);
        found += std::to_string(head.status) + " " + std::string(head.reason) + " " +
                 std::to_string(head.minor_version) + std::to_string(head.keep_alive) +
                 std::to_string(static_cast<int>(head.framing)) + " " +
                 std::to_string(head.content_length) + "\r\n" + text_of(head.fields);
        over_ = head.status >= 200;
        return 0;
    }

    BufferPool& pool_;
    TextArena arena_;
    Kind kind_;
    HeadCollector collector_;
    bool over_ = false;

public:
    bool refused_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0 || size > 200'000) return 0;
    const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto kind = static_cast<Kind>(data[0] % 3);
    std::uint32_t random = data[0] * 2U + 1U;

    static BufferPool pool(64 << 20);
    Reader whole(pool, kind);
    whole.feed(stream);
    whole.end();
    Reader cut(pool, kind);
    for (std::size_t at = 0; at < stream.size() && !cut.refused_;) {
        random = random * 1664525U + 1013904223U;
        const std::size_t piece =
            1 + (random >> 24U) % (stream.size() > 5000 ? 3000U : (random >> 20U) % 16U + 1U);
        cut.feed(stream.substr(at, piece));
        at += piece;
    }
    cut.end();
    require(whole.found == cut.found, "a cut changed the verdict");
    return 0;
}
