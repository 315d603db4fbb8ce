// SPDX-License-Identifier: Apache-2.0
// The HTTP vectors through the collector, the parsers and the body reader: whole, cut in two at
// every byte, and byte by byte. The verdict is the same each time.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "http/body_reader.h"
#include "http/head_collector.h"
#include "http/head_writer.h"
#include "support/http_vectors.h"

namespace sluice::test {
namespace {

using http::BodyReader;
using http::Framing;
using http::HeadCollector;

Slice slice_of(BufferPool& pool, std::string_view text) {
    BufferRef buffer = pool.allocate(text.size());
    std::memcpy(buffer.data(), text.data(), text.size());
    return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
}

std::string name_of(Framing framing) {
    switch (framing) {
        case Framing::None:
            return "none";
        case Framing::Length:
            return "length";
        case Framing::Chunked:
            return "chunked";
        case Framing::UntilClose:
            return "close";
    }
    return {};
}

// One connection's input, as a server or a client reads it, without the connection.
class Connection {
public:
    explicit Connection(const HttpVector& vector) : vector_(vector) {}

    std::vector<Verdict> verdicts;
    std::vector<std::string> fields;  // of the last head
    std::string copied;               // what copy_fields() makes of the first

    void feed(std::string_view bytes) {
        Slice rest = slice_of(pool_, bytes);
        while (!rest.empty() && !over_)
            rest = in_body_ ? take_body(std::move(rest)) : take_head(std::move(rest));
    }

    void end() {
        if (over_) return;
        if (vector_.is_request) {
            if (in_body_ || collector_.started()) add(Verdict::Kind::More, 0);
        } else if (in_body_ && reader_.end_of_stream() == BodyReader::State::Complete) {
            verdicts.push_back(now_);
        } else {
            add(Verdict::Kind::Cut, 0);
        }
    }

private:
    void add(Verdict::Kind kind, int status) {
        Verdict verdict;
        verdict.kind = kind;
        verdict.is_request = vector_.is_request;
        verdict.status = status;
        verdicts.push_back(verdict);
        over_ = kind != Verdict::Kind::Accept;
    }

    Slice refuse(int status) {
        add(Verdict::Kind::Reject, status);
        return {};
    }

    Slice take_head(Slice bytes) {
        switch (collector_.feed(std::move(bytes), pool_)) {
            case HeadCollector::State::NeedMore:
                return {};
            case HeadCollector::State::Bad:
                return refuse(vector_.is_request ? collector_.error().status : 502);
            case HeadCollector::State::Complete:
                break;
        }
        Slice head = collector_.take_head();
        Slice rest = collector_.take_rest();
        EXPECT_FALSE(collector_.started());
        now_ = Verdict();
        now_.is_request = vector_.is_request;
        return vector_.is_request ? take_request(std::move(head), std::move(rest))
                                  : take_response(std::move(head), std::move(rest));
    }

    Slice take_request(Slice head, Slice rest) {
        if (const auto error = http::parse_request_head(std::move(head), request_))
            return refuse(error->status);
        if (request_.framing == Framing::Length && request_.content_length > kVectorBodyMax)
            return refuse(413);
        now_.method = request_.method;
        now_.path = request_.path;
        now_.query = request_.query;
        now_.minor_version = request_.minor_version;
        now_.keep = request_.keep_alive;
        now_.expect = request_.expects_continue;
        note(request_.fields);
        return begin_body(request_.framing, request_.content_length, std::move(rest));
    }

    Slice take_response(Slice head, Slice rest) {
        if (http::parse_response_head(std::move(head), vector_.to_head, response_))
            return refuse(502);
        const bool interim = response_.status < 200;
        if (response_.status == 101 || (interim && ++interim_ > limits::kInterimResponsesMax))
            return refuse(502);
        now_.status = response_.status;
        now_.minor_version = response_.minor_version;
        note(response_.fields);
        return begin_body(response_.framing, response_.content_length, std::move(rest));
    }

    void note(const http::FieldList& list) {
        fields.clear();
        for (std::size_t i = 0; i < list.size(); ++i)
            fields.push_back(std::string(list[i].name) + ": " + std::string(list[i].value));
        if (!verdicts.empty()) return;
        TextArena arena(pool_);
        TextWriter writer(arena);
        http::copy_fields(writer, list, http::kHopByHop);
        copied = writer.view();
    }

    Slice begin_body(Framing framing, std::uint64_t length, Slice rest) {
        now_.framing = name_of(framing);
        reader_.start(framing, length);
        in_body_ = true;
        if (framing == Framing::None || (framing == Framing::Length && length == 0))
            return complete(std::move(rest));
        return rest;
    }

    Slice take_body(Slice bytes) {
        const auto state =
            reader_.feed(std::move(bytes), Delegate<void(Slice)>::to<&Connection::append>(*this));
        if (vector_.is_request && now_.body.size() > kVectorBodyMax) return refuse(413);
        if (state == BodyReader::State::Bad) return refuse(vector_.is_request ? 400 : 502);
        if (state == BodyReader::State::NeedMore) return {};
        return complete(reader_.take_rest());
    }

    void append(Slice bytes) { now_.body += bytes.view(); }

    Slice complete(Slice rest) {
        in_body_ = false;
        const bool last = vector_.is_request ? !now_.keep : now_.status >= 200;
        // What comes behind an answer later is for the pool's watch; here it comes at once.
        now_.reuse = !vector_.is_request && last && response_.keep_alive && rest.empty();
        verdicts.push_back(now_);
        over_ = last;
        return rest;
    }

    const HttpVector& vector_;
    BufferPool pool_{64 << 20};
    HeadCollector collector_;
    BodyReader reader_;
    http::RequestHead request_;
    http::ResponseHead response_;
    Verdict now_;
    int interim_ = 0;
    bool in_body_ = false;
    bool over_ = false;
};

std::vector<std::string> texts_of(const std::vector<Verdict>& verdicts, bool with_reuse) {
    std::vector<std::string> texts;
    for (Verdict verdict : verdicts) {
        if (!with_reuse) verdict.reuse = false;
        texts.push_back(verdict.text());
    }
    return texts;
}

// Feeds the pieces that `cuts` make of it.
void check(const HttpVector& vector, const std::vector<std::size_t>& cuts) {
    Connection connection(vector);
    std::size_t from = 0;
    for (const std::size_t cut : cuts) {
        connection.feed(std::string_view(vector.bytes).substr(from, cut - from));
        from = cut;
    }
    if (from < vector.bytes.size()) connection.feed(std::string_view(vector.bytes).substr(from));
    connection.end();
    if (vector.is_copy) {
        std::string expected;
        for (const std::string& field : vector.fields)
            expected += field + (field.back() == ':' ? " \r\n" : "\r\n");
        EXPECT_EQ(connection.copied, expected);
        return;
    }
    const bool whole = cuts.empty();
    EXPECT_EQ(texts_of(connection.verdicts, whole), texts_of(vector.verdicts, whole));
    for (const std::string& field : vector.fields) {
        const std::string wanted = field.back() == ':' ? field + ' ' : field;
        EXPECT_NE(std::ranges::find(connection.fields, wanted), connection.fields.end()) << wanted;
    }
}

std::vector<HttpVector> vectors() {
    static const std::vector<HttpVector> loaded = load_http_vectors();
    return loaded;
}

TEST(HttpVectors, AreMany) { EXPECT_GE(vectors().size(), 400U); }

TEST(HttpVectors, Whole) {
    for (const HttpVector& vector : vectors()) {
        SCOPED_TRACE(vector.place + " " + vector.name);
        check(vector, {});
    }
}

TEST(HttpVectors, CutInTwoEverywhere) {
    for (const HttpVector& vector : vectors()) {
        SCOPED_TRACE(vector.place + " " + vector.name);
        for (const std::size_t cut : cutting_places(vector.bytes)) {
            check(vector, {cut});
            if (testing::Test::HasFailure()) FAIL() << "cut at " << cut;
        }
    }
}

TEST(HttpVectors, ByteByByte) {
    for (const HttpVector& vector : vectors()) {
        SCOPED_TRACE(vector.place + " " + vector.name);
        std::vector<std::size_t> cuts;
        for (std::size_t at = 1; at < vector.bytes.size(); ++at) cuts.push_back(at);
        check(vector, cuts);
    }
}

}  // namespace
}  // namespace sluice::test
