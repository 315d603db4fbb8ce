// SPDX-License-Identifier: Apache-2.0
#include "json/value.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace sluice::json {
namespace {

constexpr std::array kSpecs{MemberSpec{"v"}};
constexpr MemberTable kTable(kSpecs);

class ValueTest : public testing::Test {
protected:
    void scan_value(const std::string& value) {
        body_ = R"({"v": )" + value + " }";
        EXPECT_TRUE(scan_copy(body_, kTable, found_)) << body_;
    }

    std::optional<bool> boolean(const std::string& value) {
        scan_value(value);
        return as_bool(found_[0], body_);
    }

    std::optional<std::int64_t> integer(const std::string& value) {
        scan_value(value);
        return as_int64(found_[0], body_);
    }

    std::optional<std::string_view> string(const std::string& value, std::span<char> out) {
        scan_value(value);
        return as_string(found_[0], body_, out);
    }

    std::string body_;
    std::array<Member, 1> found_;
    std::array<char, 64> buffer_;
};

TEST_F(ValueTest, ReadsBooleans) {
    EXPECT_EQ(boolean("true"), true);
    EXPECT_EQ(boolean("false"), false);
    EXPECT_EQ(boolean("null"), std::nullopt);
    EXPECT_EQ(as_bool(Member{}, body_), std::nullopt);
}

TEST_F(ValueTest, ReadsIntegersOnly) {
    EXPECT_EQ(integer("-17"), -17);
    EXPECT_EQ(integer("9223372036854775807"), INT64_MAX);
    EXPECT_EQ(integer("9223372036854775808"), std::nullopt);
    EXPECT_EQ(integer("1.0"), std::nullopt);
    EXPECT_EQ(integer("1e3"), std::nullopt);
    EXPECT_EQ(integer(R"("1")"), std::nullopt);
}

TEST_F(ValueTest, PlainStringsAreViewsOfTheBody) {
    const auto text = string(R"("plain")", buffer_);
    ASSERT_EQ(text, "plain");
    EXPECT_EQ(text->data(), body_.data() + 7);
    EXPECT_EQ(string(R"("")", {}), "");
}

TEST_F(ValueTest, EscapedStringsAreDecoded) {
    EXPECT_EQ(string(R"("\"\\\/\b\f\n\r\t")", buffer_), "\"\\/\b\f\n\r\t");
    EXPECT_EQ(string(R"("a\u0041\u00e9\u5feb\ud83d\ude00z")", buffer_),
              "aA\xc3\xa9\xe5\xbf\xab\xf0\x9f\x98\x80z");
}

TEST_F(ValueTest, LoneSurrogatesBecomeReplacementCharacters) {
    EXPECT_EQ(string(R"("\ud800x")", buffer_), "\xef\xbf\xbdx");
    EXPECT_EQ(string(R"("\udc00")", buffer_), "\xef\xbf\xbd");
    EXPECT_EQ(string(R"("\ud800\u0041")", buffer_), "\xef\xbf\xbd\x41");
    EXPECT_EQ(string(R"("\ud800\ud83d\ude00")", buffer_), "\xef\xbf\xbd\xf0\x9f\x98\x80");
}

TEST_F(ValueTest, AStringThatDoesNotFitIsRefused) {
    const std::span<char> small(buffer_.data(), 3);
    EXPECT_EQ(string(R"("a\nb")", small), "a\nb");
    EXPECT_EQ(string(R"("a\nbc")", small), std::nullopt);
    EXPECT_EQ(string(R"("abcd")", small), "abcd");  // a view needs no room
}

TEST(Escape, EveryByteComesBack) {
    std::array<char, 512 * kEscapeGrowthMax> escaped;
    std::array<char, 512> plain;
    for (int c = 0; c < 128; ++c) {
        const std::string text = "x" + std::string(1, static_cast<char>(c)) + "\xc3\xa9y";
        const auto inside = escape(text, escaped);
        ASSERT_TRUE(inside);
        EXPECT_EQ(nlohmann::json::parse("\"" + std::string(*inside) + "\"").get<std::string>(),
                  text);
        EXPECT_EQ(unescape(*inside, plain), text);
    }
    EXPECT_EQ(escape("", {}), "");
    EXPECT_EQ(escape("ab", std::span(plain).first(1)), std::nullopt);
    EXPECT_EQ(escape("\n", std::span(plain).first(1)), std::nullopt);
}

std::vector<std::string> elements_of(std::string_view array) {
    std::vector<std::string> all;
    Elements elements(array);
    while (const auto element = elements.next()) {
        all.emplace_back(*element);
    }
    return all;
}

TEST(ElementsTest, YieldsEachElementAsWritten) {
    using List = std::vector<std::string>;
    EXPECT_EQ(elements_of("[]"), List{});
    EXPECT_EQ(elements_of("[ \n ]"), List{});
    EXPECT_EQ(elements_of("[1]"), List{"1"});
    EXPECT_EQ(elements_of(R"([ 1 , {"a":[1,2],"b":"]}\","} ,[[],[3]], "x\\" ,null])"),
              (List{"1", R"({"a":[1,2],"b":"]}\","})", "[[],[3]]", R"("x\\")", "null"}));
}

}  // namespace
}  // namespace sluice::json
