// SPDX-License-Identifier: Apache-2.0
#include "load/stream_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice::load {
namespace {

using Seen = StreamReader::Seen;

std::string event(const std::string& delta) {
    return "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":" + delta + "}]}\n\n";
}

const std::string kRole = event(R"({"role":"assistant","content":""})");
const std::string kToken = event(R"({"content":"word"})");

// What is seen when the text comes in pieces of `piece` bytes.
std::vector<Seen> read(const std::string& text, std::size_t piece) {
    StreamReader reader;
    json::Scanner scanner;
    reader.start(json::Api::Chat);
    std::vector<Seen> all;
    for (std::size_t at = 0; at < text.size(); at += piece) {
        std::string_view rest = std::string_view(text).substr(at, piece);
        while (!rest.empty())
            if (const Seen seen = reader.next(scanner, rest); seen != Seen::Nothing)
                all.push_back(seen);
    }
    EXPECT_EQ(reader.done(), !all.empty() && all.back() == Seen::Done);
    return all;
}

TEST(StreamReader, SeesTheSameHoweverTheStreamIsCut) {
    const std::string text =
        ": hello\n\n" + kRole + kToken + ": alive\n\n" + kToken + kToken + "data: [DONE]\n\n";
    const std::vector<Seen> expected{Seen::FirstContent, Seen::Content, Seen::Content, Seen::Done};
    for (std::size_t piece = 1; piece <= text.size(); ++piece)
        EXPECT_EQ(read(text, piece), expected) << piece;
}

TEST(StreamReader, RoleIsNoContentAndNoEndIsNoDone) {
    EXPECT_EQ(read(kRole, 7), std::vector<Seen>{});
    EXPECT_EQ(read(kRole + kToken, 7), std::vector<Seen>{Seen::FirstContent});
}

TEST(StreamReader, ErrorsAreSeenBeforeAndBehindContent) {
    const std::string error = "data: {\"error\":{\"message\":\"no\",\"code\":500}}\n\n";
    EXPECT_EQ(read(error, 5), std::vector<Seen>{Seen::Error});
    EXPECT_EQ(read(kToken + error, 5), (std::vector<Seen>{Seen::FirstContent, Seen::Error}));
}

}  // namespace
}  // namespace sluice::load
