// SPDX-License-Identifier: Apache-2.0
#include "json/splice.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "unit/json/splice_model.h"

namespace sluice::json {
namespace {

using test::kEditSpecs;
using test::kEditTable;
using test::text_of;

enum : std::int16_t { A, B, C, O, OA, OB, OP, OPA, OPB, Model };

// A body, scanned, with a splice on it.
class SpliceTest : public testing::Test {
protected:
    Splice& on(std::string_view body) {
        const auto root = scan_copy(body, kEditTable, found_);
        EXPECT_TRUE(root) << body;
        splice_.reset(body, root.value_or(Member{}), found_);
        return splice_;
    }

    std::string result() { return text_of(splice_.finish()); }

    std::array<Member, kEditSpecs.size()> found_;
    Splice splice_;
};

TEST_F(SpliceTest, WithoutEditsTheBodyIsOnePiece) {
    const std::string_view body = R"( { "a" : 1 } )";
    const auto pieces = on(body).finish();
    ASSERT_EQ(pieces.size(), 1U);
    EXPECT_EQ(pieces[0].data, body.data());
    EXPECT_EQ(pieces[0].size, body.size());
    EXPECT_FALSE(pieces[0].inserted);
    EXPECT_EQ(splice_.total_bytes(), body.size());
}

TEST_F(SpliceTest, RemovesTheFirstMemberWithTheCommaBehindIt) {
    on(R"({"a":1, "x":2})").remove(A);
    EXPECT_EQ(result(), R"({ "x":2})");
}

TEST_F(SpliceTest, RemovesALaterMemberWithTheCommaBeforeIt) {
    on(R"({"x":2 , "a": [1,2] , "y":3})").remove(A);
    EXPECT_EQ(result(), R"({"x":2  , "y":3})");
}

TEST_F(SpliceTest, RemovesTheOnlyMember) {
    on(R"({ "a":1 })").remove(A);
    EXPECT_EQ(result(), "{  }");
}

TEST_F(SpliceTest, RemovesTheFirstTwoOfThree) {
    on(R"({"a":1,"b":2,"x":3})");
    splice_.remove(B);
    splice_.remove(A);
    EXPECT_EQ(result(), R"({"x":3})");
}

TEST_F(SpliceTest, RemovesFirstAndLastAndKeepsTheMiddle) {
    on(R"({"a":1,"x":2,"b":3})");
    splice_.remove(A);
    splice_.remove(B);
    EXPECT_EQ(result(), R"({"x":2})");
}

TEST_F(SpliceTest, RemovesEveryMember) {
    on(R"({"a":1,"b":2,"c":3})");
    splice_.remove(A);
    splice_.remove(B);
    splice_.remove(C);
    EXPECT_EQ(result(), "{}");
}

TEST_F(SpliceTest, ReplacesOnlyTheValue) {
    on(R"({"x":1, "a" : "old" , "y":2})").replace(A, "17");
    EXPECT_EQ(result(), R"({"x":1, "a" : 17 , "y":2})");
}

TEST_F(SpliceTest, TheLastReplaceWins) {
    on(R"({"a":1})");
    splice_.replace(A, "2");
    splice_.replace(A, "3");
    EXPECT_EQ(result(), R"({"a":3})");
}

TEST_F(SpliceTest, RemoveWinsOverReplaceInEitherOrder) {
    on(R"({"a":1,"b":2,"x":3})");
    splice_.replace(A, "9");
    splice_.remove(A);
    splice_.remove(B);
    splice_.replace(B, "9");
    EXPECT_EQ(result(), R"({"x":3})");
}

TEST_F(SpliceTest, InsertsBehindTheBrace) {
    on(R"(  { "x":1})").insert(kRoot, R"("k":2)");
    EXPECT_EQ(result(), R"(  {"k":2, "x":1})");
}

TEST_F(SpliceTest, InsertsIntoAnEmptyObjectWithoutComma) {
    on("{ }").insert(kRoot, R"("k":2)");
    EXPECT_EQ(result(), R"({"k":2 })");
}

TEST_F(SpliceTest, InsertsKeepTheirOrder) {
    on("{}");
    splice_.insert(kRoot, R"("k":1)");
    splice_.insert(kRoot, R"("l":2)");
    EXPECT_EQ(result(), R"({"k":1,"l":2})");
}

TEST_F(SpliceTest, InsertsIntoAnObjectThatBecomesEmptyWithoutComma) {
    on(R"({"a":1,"b":2})");
    splice_.remove(A);
    splice_.insert(kRoot, R"("k":1)");
    splice_.remove(B);
    EXPECT_EQ(result(), R"({"k":1})");
}

TEST_F(SpliceTest, EditsNestedObjects) {
    on(R"({"x":0,"o":{"a":1,"p":{"a":2},"z":3}})");
    splice_.remove(OA);
    splice_.remove(OPA);
    splice_.insert(OP, R"("k":4)");
    splice_.insert(O, R"("k":5)");
    EXPECT_EQ(result(), R"({"x":0,"o":{"k":5,"p":{"k":4},"z":3}})");
}

TEST_F(SpliceTest, EditsInsideARemovedOrReplacedMemberAreDropped) {
    on(R"({"o":{"a":1,"p":{"a":2}},"x":1})");
    splice_.insert(O, R"("k":5)");
    splice_.remove(OA);
    splice_.replace(OP, "7");
    splice_.insert(OP, R"("k":5)");
    EXPECT_EQ(result(), R"({"o":{"k":5,"p":7},"x":1})");
    splice_.remove(O);
    EXPECT_EQ(result(), R"({"x":1})");
}

TEST_F(SpliceTest, RefusesWhatDoesNotApply) {
    on(R"({"b":1})");
    EXPECT_FALSE(splice_.remove(A));
    EXPECT_FALSE(splice_.replace(A, "1"));
    EXPECT_FALSE(splice_.insert(B, R"("k":1)"));  // not an object
    EXPECT_FALSE(splice_.insert(O, R"("k":1)"));  // absent
    EXPECT_FALSE(splice_.remove(-1));
    EXPECT_FALSE(splice_.remove(99));
    EXPECT_EQ(result(), R"({"b":1})");
}

TEST_F(SpliceTest, RefusesMoreEditsThanItHasRoomFor) {
    on(R"({"a":1})");
    for (std::size_t i = 0; i < kSpliceEditsMax; ++i) {
        ASSERT_TRUE(splice_.insert(kRoot, R"("k":1)"));
    }
    EXPECT_FALSE(splice_.insert(kRoot, R"("k":1)"));
    EXPECT_FALSE(splice_.remove(A));
    EXPECT_LE(splice_.finish().size(), kSplicePiecesMax);
}

TEST_F(SpliceTest, BeginsAnewOnTheNextBody) {
    on(R"({"a":1})").remove(A);
    EXPECT_EQ(result(), "{}");
    on(R"({"a":2})");
    EXPECT_EQ(result(), R"({"a":2})");
}

std::string random_blanks(test::Random& random) {
    static constexpr std::array<std::string_view, 5> kBlanks{"", "", "", " ", "\n\t "};
    return std::string(kBlanks[random.below(kBlanks.size())]);
}

std::string random_value(test::Random& random, int depth);

std::string random_object(test::Random& random, int depth) {
    std::vector<std::string> names{"a", "b", "c", "o", "p", "model", "x", "y", "\\u0061z", "a\\\""};
    std::string text = "{" + random_blanks(random);
    const std::uint32_t members = random.below(6);
    for (std::uint32_t i = 0; i < members; ++i) {
        const std::uint32_t pick = random.below(static_cast<std::uint32_t>(names.size()));
        text += i == 0 ? "" : "," + random_blanks(random);
        text += "\"" + names[pick] + "\"" + random_blanks(random) + ":" + random_blanks(random);
        text += random_value(random, depth) + random_blanks(random);
        names.erase(names.begin() + static_cast<std::ptrdiff_t>(pick));
    }
    return text + "}";
}

std::string random_value(test::Random& random, int depth) {
    static constexpr std::array<std::string_view, 8> kScalars{
        "1", "-2.5e3", "true", "null", R"("text")", R"("a\"}],{")", "[]", R"([1, {"a": "x,"}])"};
    const bool nested = depth > 0 && random.below(2) == 0;
    return nested ? random_object(random, depth - 1)
                  : std::string(kScalars[random.below(kScalars.size())]);
}

TEST(SpliceProperty, RandomEditsOnRandomObjectsGiveTheEditedTree) {
    for (std::uint64_t seed = 0; seed < 20000; ++seed) {
        test::Random random(seed);
        const std::string body = random_blanks(random) + random_object(random, 3);
        std::array<Member, kEditSpecs.size()> found;
        const auto root = scan_copy(body, kEditTable, found);
        ASSERT_TRUE(root) << "seed " << seed << ": " << body;
        test::EditedTwice twice(body, *root, found);
        twice.edit_at_random(random);
        ASSERT_EQ(twice.check(), "") << "seed " << seed << ": " << body;
    }
}

}  // namespace
}  // namespace sluice::json
