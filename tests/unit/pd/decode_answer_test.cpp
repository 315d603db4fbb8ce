// SPDX-License-Identifier: Apache-2.0
// What proves that D serves, what is held back until then, and what goes out when.
#include <gtest/gtest.h>

#include "pd/decode_answer.h"
#include "unit/pd/world.h"

namespace sluice::pd::test {
namespace {

using Verdict = DecodeAnswer::Verdict;

constexpr std::string_view kRole =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
    "\"finish_reason\":null}]}\n\n";
constexpr std::string_view kContent =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
constexpr std::string_view kError =
    "data: {\"error\":{\"message\":\"KV load failed\",\"type\":\"T\",\"param\":null,"
    "\"code\":500}}\n\n";
constexpr std::string_view kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Transfer-Encoding: chunked\r\nX-Request-Id: theirs\r\nX-Kept: 1\r\n\r\n";

class DecodeAnswerTest : public testing::Test {
protected:
    Verdict head(std::string_view text, json::Api api = json::Api::Chat, bool unchecked = false) {
        answer.reset(api, unchecked);
        http::ResponseHead parsed;
        const bool bad = http::parse_response_head(slice_of(pool, text), false, parsed).has_value();
        EXPECT_FALSE(bad);
        return answer.on_head(parsed, texts);
    }
    Verdict body(std::string_view text) { return answer.on_body(slice_of(pool, text)); }
    std::string ready() {
        SliceQueue out;
        answer.take_ready([&out](Slice part) { out.push(std::move(part)); });
        return text_of(out);
    }
    std::string rest() {
        return text_of(answer.take_rest());
    }

    BufferPool pool{64 << 20};
    TextArena texts{pool};
    json::Scanner scanner;
    DecodeAnswer answer{scanner};
};

TEST_F(DecodeAnswerTest, HeadCommentsAndTheRoleChunkProveNothing) {
    EXPECT_EQ(head(kStreamHead), Verdict::Hold);
    EXPECT_EQ(body(": keep-alive\n\n"), Verdict::Hold);
    EXPECT_EQ(body(kRole), Verdict::Hold);
    EXPECT_EQ(ready(), "");
    EXPECT_EQ(body(kContent), Verdict::Content);
    EXPECT_EQ(ready(), ": keep-alive\n\n" + std::string(kRole) + std::string(kContent))
        << "nothing of it is lost";
    EXPECT_EQ(answer.field_lines().view(),
              "Content-Type: text/event-stream; charset=utf-8\r\nX-Kept: 1\r\n");
    EXPECT_TRUE(answer.is_event_stream());
    EXPECT_EQ(answer.content_length(), std::nullopt);
}

TEST_F(DecodeAnswerTest, WhereverItIsCut) {
    const std::string all =
        ": c\n\n" + std::string(kRole) + std::string(kContent) + "data: [DONE]\n\n";
    const std::size_t proof = 5 + kRole.size() + kContent.size();
    for (std::size_t cut = 1; cut < all.size(); ++cut) {
        head(kStreamHead);
        const Verdict first = body(all.substr(0, cut));
        EXPECT_EQ(first, cut >= proof ? Verdict::Content : Verdict::Hold) << cut;
        std::string out = first == Verdict::Content ? ready() : "";
        const Verdict second = body(all.substr(cut));
        if (first == Verdict::Hold) {
            EXPECT_EQ(second, Verdict::Content) << cut;
        }
        out += ready();
        EXPECT_EQ(answer.on_end(), Verdict::Hold);
        EXPECT_EQ(out + rest(), all) << cut;
    }
}

TEST_F(DecodeAnswerTest, AnErrorEventBehindTheRoleChunkIsARefusal) {
    head(kStreamHead);
    EXPECT_EQ(body(std::string(kRole) + std::string(kError)), Verdict::Refused);
    EXPECT_EQ(answer.refused_status(), 500);
    EXPECT_TRUE(answer.refused_body().starts_with("{\"error\":{\"message\":\"KV load failed\""))
        << answer.refused_body();
}

TEST_F(DecodeAnswerTest, AnErrorBehindContentIsPassedOn) {
    head(kStreamHead);
    EXPECT_EQ(body(kContent), Verdict::Content);
    ready();
    EXPECT_EQ(body(kError), Verdict::Hold);
    EXPECT_EQ(ready(), kError);
}

TEST_F(DecodeAnswerTest, AStreamWithoutContentIsARefusal) {
    head(kStreamHead);
    EXPECT_EQ(body(kRole), Verdict::Hold);
    EXPECT_EQ(answer.on_end(), Verdict::Refused);
    EXPECT_EQ(answer.refused_status(), 502);
}

TEST_F(DecodeAnswerTest, EventsGoOutWhole) {
    head(kStreamHead);
    EXPECT_EQ(body(kContent), Verdict::Content);
    ready();
    body(kContent.substr(0, 10));
    EXPECT_EQ(ready(), "");
    EXPECT_FALSE(answer.inside_event()) << "an error event could follow";
    body(kContent.substr(10));
    EXPECT_EQ(ready(), kContent);
}

TEST_F(DecodeAnswerTest, AnEventThatIsTooLongGoesOutInParts) {
    head(kStreamHead);
    body(kContent);
    ready();
    body("data: " + std::string(limits::kPartialEventMax + 1, 'x'));
    EXPECT_TRUE(answer.inside_event());
    EXPECT_GT(ready().size(), limits::kPartialEventMax);
    body("\n\n");
    EXPECT_EQ(ready(), "\n\n");
    EXPECT_FALSE(answer.inside_event());
}

TEST_F(DecodeAnswerTest, APlainAnswerIsHeldUntilItIsWhole) {
    EXPECT_EQ(head("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                   "4\r\n\r\n"),
              Verdict::Hold);
    EXPECT_EQ(body("{\"a"), Verdict::Hold);
    EXPECT_EQ(answer.on_end(), Verdict::Content);
    EXPECT_EQ(answer.content_length(), 4U);
    EXPECT_EQ(ready(), "{\"a");
}

TEST_F(DecodeAnswerTest, AHugePlainAnswerIsNotHeldForEver) {
    head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string part(200 * 1024, 'x');
    EXPECT_EQ(body(part), Verdict::Hold);
    EXPECT_EQ(body(part), Verdict::Content);
    EXPECT_EQ(ready(), part + part);
}

TEST_F(DecodeAnswerTest, AnErrorAnswerIsKeptWholeAndBounded) {
    EXPECT_EQ(head("HTTP/1.1 422 X\r\nContent-Length: 3\r\n\r\n"), Verdict::Hold);
    EXPECT_EQ(body("bad"), Verdict::Hold);
    EXPECT_EQ(answer.on_end(), Verdict::Refused);
    EXPECT_EQ(answer.refused_status(), 422);
    EXPECT_EQ(text_of(answer.held()), "bad");
    head("HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 5; ++i) body(std::string(100 * 1024, 'x'));
    EXPECT_EQ(answer.on_end(), Verdict::Refused);
    EXPECT_LE(answer.held().bytes(), limits::kUpstreamErrorBytesMax);
    EXPECT_TRUE(answer.overflowed());
}

TEST_F(DecodeAnswerTest, UncheckedPathsGoOnFromTheHead) {
    EXPECT_EQ(head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", json::Api::Unknown, true),
              Verdict::Content);
    EXPECT_EQ(body("ok"), Verdict::Hold);
    EXPECT_EQ(ready(), "ok");
    EXPECT_EQ(head("HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n", json::Api::Unknown, true),
              Verdict::Hold)
        << "an error may still be answered elsewhere";
}

}  // namespace
}  // namespace sluice::pd::test
