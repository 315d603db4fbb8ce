// SPDX-License-Identifier: Apache-2.0
#include "json/scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "json/value.h"

namespace sluice::json {
namespace {

enum : std::int16_t { Model, Stream, Messages, Prompt, Options, Usage, Deep, kCount };

constexpr std::array<MemberSpec, kCount> kSpecs{{
    {"model", kRoot, mask_of(Kind::String)},
    {"stream", kRoot, mask_of(Kind::Bool, Kind::Null)},
    {"messages", kRoot, mask_of(Kind::Array)},
    {"prompt", kRoot, mask_of(Kind::String, Kind::Array)},
    {"stream_options", kRoot, mask_of(Kind::Object, Kind::Null)},
    {"include_usage", Options, mask_of(Kind::Bool)},
    {"deep", Options},
}};
constexpr MemberTable kTable(kSpecs);

class ScanTest : public testing::Test {
protected:
    // Scans a copy with exactly the slack behind it, so that the address sanitizer sees a byte too
    // much, and whatever stands in the slack.
    std::expected<Member, ScanError> scan_text(std::string_view text) {
        text_ = text;
        copy_ = std::make_unique<char[]>(text.size() + limits::kBufferSlack);
        text.copy(copy_.get(), text.size());
        const auto first = scan_before('}');
        for (const char slack : std::string_view("],:\"{[1 \\\0", 10)) {
            const auto again = scan_before(slack);
            EXPECT_EQ(first.has_value(), again.has_value()) << text << " before " << slack;
            if (!first && !again) {
                EXPECT_EQ(first.error().code, again.error().code) << text << " before " << slack;
                EXPECT_EQ(first.error().offset, again.error().offset) << text << slack;
            }
        }
        return first;
    }

    std::expected<Member, ScanError> scan_before(char slack) {
        std::fill_n(copy_.get() + text_.size(), limits::kBufferSlack, slack);
        return scanner_.scan({copy_.get(), text_.size()}, kTable, found_);
    }

    std::string_view value(std::int16_t member) const {
        return raw(found_[static_cast<std::size_t>(member)], text_);
    }

    void expect_error(std::string_view text, ScanCode code, std::uint32_t offset) {
        const auto result = scan_text(text);
        ASSERT_FALSE(result) << text;
        EXPECT_EQ(static_cast<int>(result.error().code), static_cast<int>(code)) << text;
        EXPECT_EQ(result.error().offset, offset) << text;
    }

    std::string message(std::string_view text) {
        const auto result = scan_text(text);
        if (result) return "no error";
        std::array<char, kErrorTextBytesMax> buffer;
        return std::string(describe(result.error(), kSpecs, buffer));
    }

    Scanner scanner_;
    std::string text_;
    std::unique_ptr<char[]> copy_;
    std::array<Member, kCount> found_;
};

TEST_F(ScanTest, FindsMembersWithExactBounds) {
    const auto root = scan_text(R"( {"model" : "m" , "stream":true,"x":[{"model":1}]} )");
    ASSERT_TRUE(root);
    EXPECT_EQ(root->count, 3U);
    EXPECT_EQ(raw(*root, text_), R"({"model" : "m" , "stream":true,"x":[{"model":1}]})");
    EXPECT_EQ(value(Model), R"("m")");
    EXPECT_EQ(value(Stream), "true");
    EXPECT_FALSE(found_[Messages]);
    EXPECT_EQ(found_[Model].key_begin, 2U);
    EXPECT_EQ(found_[Model].comma_before, kNoOffset);
    EXPECT_EQ(found_[Model].comma_after, 16U);
    EXPECT_EQ(found_[Stream].comma_before, 16U);
    EXPECT_EQ(found_[Stream].ordinal, 1U);
    EXPECT_EQ(text_[found_[Stream].comma_after], ',');
}

TEST_F(ScanTest, FindsNestedMembersOnlyInTheirObject) {
    const auto root = scan_text(
        R"({"include_usage":1,"stream_options":{"y":{"deep":1},"include_usage":true},"z":0})");
    ASSERT_TRUE(root);
    EXPECT_EQ(value(Options), R"({"y":{"deep":1},"include_usage":true})");
    EXPECT_EQ(found_[Options].count, 2U);
    EXPECT_EQ(text_[found_[Options].comma_after], ',');
    EXPECT_EQ(value(Usage), "true");
    EXPECT_EQ(found_[Usage].parent, Options);
    EXPECT_EQ(found_[Usage].ordinal, 1U);
    EXPECT_FALSE(found_[Deep]);
}

TEST_F(ScanTest, CountsArrays) {
    ASSERT_TRUE(
        scan_text(R"({"messages":[{"a":[1,2]},{},{"messages":[]}],"prompt":[[1,[2,3]],[4]]})"));
    EXPECT_EQ(found_[Messages].count, 3U);
    EXPECT_EQ(found_[Messages].first_kind, Kind::Object);
    EXPECT_EQ(found_[Messages].first_count, 0U);
    EXPECT_EQ(found_[Prompt].count, 2U);
    EXPECT_EQ(found_[Prompt].first_kind, Kind::Array);
    EXPECT_EQ(found_[Prompt].first_count, 2U);
    EXPECT_EQ(found_[Prompt].first_item_kind, Kind::Number);
}

TEST_F(ScanTest, EmptyArraysHaveNoFirstElement) {
    ASSERT_TRUE(scan_text(R"({"messages":[ ],"prompt":[[],[1]]})"));
    EXPECT_EQ(found_[Messages].count, 0U);
    EXPECT_EQ(found_[Messages].first_kind, Kind::Absent);
    EXPECT_EQ(found_[Prompt].count, 2U);
    EXPECT_EQ(found_[Prompt].first_count, 0U);
}

// The 64-byte loop and the slow one must count alike, whatever stands where.
TEST_F(ScanTest, CountsLongIntegerArrays) {
    for (const std::string_view comma : {",", ", ", " ,", ",\n"}) {
        for (std::uint32_t size = 1; size < 200; ++size) {
            std::string array = "[";
            for (std::uint32_t i = 0; i < size; ++i) {
                array += (i == 0 ? "" : std::string(comma)) + std::to_string(i * i * 37 % 100003);
            }
            array += "]";
            ASSERT_TRUE(scan_text(R"({"prompt":)" + array + "}"));
            EXPECT_EQ(found_[Prompt].count, size);
            EXPECT_EQ(found_[Prompt].first_kind, Kind::Number);
            EXPECT_EQ(value(Prompt), array);
            ASSERT_TRUE(scan_text(R"({"prompt":[)" + array + ", 7," + array + "]}"));
            EXPECT_EQ(found_[Prompt].count, 3U);
            EXPECT_EQ(found_[Prompt].first_count, size);
        }
    }
}

TEST_F(ScanTest, EveryDamageToAnIntegerArrayIsSeen) {
    std::string array = "[";
    for (int i = 0; i < 60; ++i) {
        array += std::to_string(i * 977 % 5003) + ", ";
    }
    array += "0]";
    for (std::size_t at = 1; at < array.size(); ++at) {
        for (const char c : std::string_view(", 0x-.]\"")) {
            std::string damaged = array;
            damaged[at] = c;
            const std::string text = R"({"x":)" + damaged + "}";
            EXPECT_EQ(scan_text(text).has_value(), nlohmann::json::accept(text)) << text;
        }
    }
}

TEST_F(ScanTest, KeysAreComparedDecoded) {
    ASSERT_TRUE(scan_text(R"({"m\u006fdel":"x"})"));
    EXPECT_EQ(value(Model), R"("x")");
    expect_error(R"({"model":"x","m\u006Fdel":"y"})", ScanCode::Duplicate, 13);
    ASSERT_TRUE(scan_text(R"({"\u006d\u006f\u0064\u0065\u006c":"x","model\u0000":1})"));
    EXPECT_EQ(value(Model), R"("x")");
}

TEST_F(ScanTest, WantedDuplicatesAreRefusedOthersPass) {
    EXPECT_EQ(message(R"({"model":"a","x":1,"model":"b"})"),
              R"(member "model" is given twice (at byte 19))");
    EXPECT_EQ(message(R"({"stream_options":{"include_usage":true,"include_usage":true}})"),
              R"(member "stream_options.include_usage" is given twice (at byte 40))");
    EXPECT_TRUE(scan_text(R"({"x":1,"x":2})"));
    EXPECT_TRUE(scan_text(R"({"y":{"model":1,"model":2}})"));
}

TEST_F(ScanTest, WrongTypesAreRefusedWithWhatIsAllowed) {
    EXPECT_EQ(message(R"({"stream":"yes"})"),
              R"(member "stream" must be true, false or null (at byte 10))");
    EXPECT_EQ(message(R"({"model":1})"), R"(member "model" must be a string (at byte 9))");
    EXPECT_EQ(message(R"({"prompt":{}})"),
              R"(member "prompt" must be a string or an array (at byte 10))");
    EXPECT_EQ(message(R"({"stream_options":{"include_usage":null}})"),
              R"(member "stream_options.include_usage" must be true or false (at byte 35))");
    EXPECT_TRUE(scan_text(R"({"stream":null})"));
}

TEST_F(ScanTest, OnlyObjectsAreBodies) {
    expect_error("", ScanCode::Empty, 0);
    expect_error(" \n", ScanCode::Empty, 2);
    expect_error("[]", ScanCode::RootNotObject, 0);
    expect_error(" 1", ScanCode::RootNotObject, 1);
    expect_error("\xef\xbb\xbf{}", ScanCode::ByteOrderMark, 0);
    expect_error("{} x", ScanCode::TrailingBytes, 3);
    expect_error("{}{}", ScanCode::TrailingBytes, 2);
    expect_error(std::string_view("{}\0", 3), ScanCode::TrailingBytes, 2);
    EXPECT_TRUE(scan_text(" {} \r\n\t"));
}

TEST_F(ScanTest, StructureIsChecked) {
    expect_error("{", ScanCode::UnexpectedEnd, 1);
    expect_error(R"({"a")", ScanCode::UnexpectedEnd, 4);
    expect_error(R"({"a":)", ScanCode::UnexpectedEnd, 5);
    expect_error(R"({"a":1)", ScanCode::UnexpectedEnd, 6);
    expect_error(R"({"a":1,})", ScanCode::ExpectedKey, 7);
    expect_error(R"({,"a":1})", ScanCode::ExpectedKey, 1);
    expect_error(R"({a:1})", ScanCode::ExpectedKey, 1);
    expect_error(R"({"a" 1})", ScanCode::ExpectedColon, 5);
    expect_error(R"({"a":,})", ScanCode::ExpectedValue, 5);
    expect_error(R"({"a":1 "b":2})", ScanCode::ExpectedCommaOrBrace, 7);
    expect_error(R"({"a":[1,2}})", ScanCode::ExpectedCommaOrBracket, 9);
    expect_error(R"({"a":[1,]})", ScanCode::ExpectedValue, 8);
    expect_error(R"({"a":[,1]})", ScanCode::ExpectedValue, 6);
    expect_error(R"({"a":[1 2]})", ScanCode::ExpectedCommaOrBracket, 8);
    expect_error(R"({"a":{]})", ScanCode::ExpectedKey, 6);
}

TEST_F(ScanTest, LiteralsAreChecked) {
    expect_error(R"({"a":nulx})", ScanCode::BadLiteral, 5);
    expect_error(R"({"a":tru)", ScanCode::BadLiteral, 5);
    expect_error(R"({"a":truee})", ScanCode::ExpectedCommaOrBrace, 9);
    expect_error(R"({"a":True})", ScanCode::ExpectedValue, 5);
    expect_error(R"({"a":NaN})", ScanCode::ExpectedValue, 5);
    expect_error(R"({"a":Infinity})", ScanCode::ExpectedValue, 5);
}

TEST_F(ScanTest, NumbersAreChecked) {
    for (const std::string_view good : {"0", "-0", "10", "1.5", "-1.5e+10", "1E5", "0e0", "1e999",
                                        "123456789012345678901234567890"}) {
        EXPECT_TRUE(scan_text(R"({"a":)" + std::string(good) + "}")) << good;
    }
    for (const std::string_view bad :
         {"01", "-", "-a", "1.", ".5", "1.e5", "1e", "1e+", "+1", "01.2.3", "--1", "0x1"}) {
        EXPECT_FALSE(scan_text(R"({"a":)" + std::string(bad) + "}")) << bad;
        EXPECT_FALSE(scan_text(R"({"a":[)" + std::string(bad) + "]}")) << bad;
    }
    expect_error(R"({"a":012})", ScanCode::BadNumber, 5);
    expect_error(R"({"a":1)", ScanCode::UnexpectedEnd, 6);
    expect_error(R"({"a":1.2.3})", ScanCode::ExpectedCommaOrBrace, 8);
}

TEST_F(ScanTest, StringsAreChecked) {
    EXPECT_TRUE(scan_text(R"({"a":"\"\\\/\b\f\n\r\t\u00e9\uD834\uDD1E"})"));
    EXPECT_TRUE(scan_text(R"({"a":"\ud800 lone"})"));
    expect_error(R"({"a":"\q"})", ScanCode::BadEscape, 6);
    expect_error(R"({"a":"\u12g4"})", ScanCode::BadEscape, 6);
    expect_error(R"({"a":"\u12)", ScanCode::UnexpectedEnd, 10);
    expect_error(R"({"a":"\)", ScanCode::UnexpectedEnd, 7);
    expect_error(R"({"a":"x)", ScanCode::UnexpectedEnd, 7);
    expect_error("{\"a\":\"x\ny\"}", ScanCode::ControlCharacter, 7);
    expect_error(R"({"\q":1})", ScanCode::BadEscape, 2);
    EXPECT_TRUE(scan_text("{\"a\":\"\x7f\"}"));
}

// A special byte at every position of strings of every length up to several vector steps.
TEST_F(ScanTest, SpecialBytesAreSeenAtEveryPosition) {
    for (std::size_t size = 1; size < 150; ++size) {
        for (std::size_t at = 0; at < size; ++at) {
            std::string text = std::string(size, 'x');
            text[at] = '\x01';
            expect_error("{\"" + text + "\":1}", ScanCode::ControlCharacter,
                         static_cast<std::uint32_t>(at + 2));
        }
    }
}

TEST_F(ScanTest, Utf8IsChecked) {
    EXPECT_TRUE(scan_text("{\"a\":\"\xe5\xbf\xab \xf0\x9f\x98\x80 \xc3\xa9\"}"));
    expect_error("{\"a\":\"\x80\"}", ScanCode::BadUtf8, 6);
    expect_error("{\"a\":\"\xc3\"}", ScanCode::BadUtf8, 6);
    expect_error("{\"a\":\"\xc0\xaf\"}", ScanCode::BadUtf8, 6);
    expect_error("{\"a\":\"\xed\xa0\x80\"}", ScanCode::BadUtf8, 6);
    expect_error("{\"a\":\"ok\xf4\x90\x80\x80\"}", ScanCode::BadUtf8, 8);
    expect_error("{\"\xff\":1}", ScanCode::BadUtf8, 2);
}

// Where invalid UTF-8 lies is found by our own decoder; it must agree with the validator.
TEST_F(ScanTest, EveryBadUtf8PairIsPlaced) {
    for (unsigned first = 0x80; first < 0x100; ++first) {
        for (unsigned second = 0; second < 0x100; ++second) {
            const std::string pair{static_cast<char>(first), static_cast<char>(second)};
            const std::string text = "{\"a\":\"" + pair + "zz\"}";
            const auto result = scan_text(text);
            EXPECT_EQ(result.has_value(), nlohmann::json::accept(text)) << first << " " << second;
            if (!result && result.error().code == ScanCode::BadUtf8) {
                EXPECT_EQ(result.error().offset, 6U) << first << " " << second;
            }
        }
    }
}

TEST_F(ScanTest, DepthIsLimited) {
    const auto nested = [](std::size_t arrays) {
        return R"({"a":)" + std::string(arrays, '[') + std::string(arrays, ']') + "}";
    };
    EXPECT_TRUE(scan_text(nested(kDepthMax - 1)));
    expect_error(nested(kDepthMax), ScanCode::TooDeep, 5 + kDepthMax - 1);
}

TEST_F(ScanTest, UnclosedBodiesAreReadAsFarAsTheyAreRight) {
    expect_error(R"({"a":{"b":1})", ScanCode::UnexpectedEnd, 12);
    expect_error(R"({"a":[{"b":1})", ScanCode::UnexpectedEnd, 13);
    expect_error(R"({"a":[[[{"b":1})", ScanCode::UnexpectedEnd, 15);
    expect_error(R"({"a":[1,2,)", ScanCode::UnexpectedEnd, 10);
    expect_error(R"({"a":1x)", ScanCode::ExpectedCommaOrBrace, 6);
    expect_error(R"({"a":{"b":01},)", ScanCode::BadNumber, 10);
    expect_error(R"({"model":1)", ScanCode::WrongType, 9);
    expect_error(R"({"a":1}])", ScanCode::TrailingBytes, 7);
    expect_error(R"({"a":"b":1})", ScanCode::ExpectedCommaOrBrace, 8);
}

// Bodies of all sizes one after the other: what one leaves in the scanner must not reach the next.
TEST_F(ScanTest, AScannerTakesBodiesOfAllSizes) {
    for (const std::size_t size : {10UL, 40'000UL, 7UL, kKeptBodyBytes + 1, 100UL, 300'000UL}) {
        const std::string text = R"({"model":")" + std::string(size, 'm') + R"(","x":[1,[2,{}]]})";
        ASSERT_TRUE(scan_text(text)) << size;
        EXPECT_EQ(value(Model).size(), size + 2);
        EXPECT_FALSE(scan_text(text.substr(0, text.size() - 1)));
    }
}

TEST_F(ScanTest, ScanCopyNeedsNoSlack) {
    const std::vector<char> text{'{', '"', 'm', 'o', 'd', 'e', 'l', '"', ':', '"', 'm', '"', '}'};
    ASSERT_TRUE(scan_copy({text.data(), text.size()}, kTable, found_));
    EXPECT_EQ(found_[Model].value_begin, 9U);
    EXPECT_FALSE(scan_copy("{", kTable, found_));
}

TEST_F(ScanTest, SyntaxErrorsSayWhatAndWhere) {
    EXPECT_EQ(message(R"({"a":1.})"),
              "the request body is not valid JSON: a number is malformed (at byte 5)");
    EXPECT_EQ(message(""), "the request body is empty");
    EXPECT_EQ(message("[]"), "the request body must be a JSON object (at byte 0)");
}

TEST_F(ScanTest, ADescriptionIsCutToItsBuffer) {
    std::array<char, 6> small;
    EXPECT_EQ(describe({ScanCode::Empty, -1, 0}, kSpecs, small), "the re");
}

TEST_F(ScanTest, EveryPrefixOfABodyIsRefused) {
    const std::string body =
        R"({"model":"m\n","stream":true,"messages":[{"role":"user","content":"\u00e9"}],)"
        R"("n":[1,-2.5e3,null,false]})";
    ASSERT_TRUE(scan_text(body));
    for (std::size_t size = 0; size < body.size(); ++size) {
        EXPECT_FALSE(scan_text(body.substr(0, size))) << size;
    }
}

TEST_F(ScanTest, EveryOneByteChangeIsJudgedAsNlohmannDoes) {
    const std::string body =
        R"({"x":"m\n", "s":true,"a":[{"r":"u","c":"\u00e9"}],"n":[1,-2.5e3,null,false] })";
    for (std::size_t at = 0; at < body.size(); ++at) {
        for (int c = 1; c < 256; ++c) {
            std::string text = body;
            text[at] = static_cast<char>(c);
            const bool object = text.find_first_not_of(" \t\r\n") == text.find('{');
            EXPECT_EQ(scan_text(text).has_value(), object && nlohmann::json::accept(text)) << text;
        }
    }
}

TEST(MemberTableTest, FindsNamesByParent) {
    EXPECT_EQ(kTable.find(kRoot, "model"), Model);
    EXPECT_EQ(kTable.find(Options, "include_usage"), Usage);
    EXPECT_EQ(kTable.find(kRoot, "include_usage"), -1);
    EXPECT_EQ(kTable.find(kRoot, ""), -1);
    EXPECT_EQ(kTable.find(kRoot, std::string(kNameBytesMax + 1, 'm')), -1);
}

}  // namespace
}  // namespace sluice::json
