// SPDX-License-Identifier: Apache-2.0
#include "json/scan_error.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace sluice::json {

namespace {

// Appends to a fixed span and cuts what does not fit.
class Sentence {
public:
    explicit Sentence(std::span<char> out) : out_(out) {}

    Sentence& add(std::string_view text) {
        const std::size_t size = std::min(text.size(), out_.size() - used_);
        std::copy_n(text.data(), size, out_.data() + used_);
        used_ += size;
        return *this;
    }

    Sentence& add(std::uint32_t number) {
        std::array<char, 10> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        return add(std::string_view(digits.data(), end));
    }

    std::string_view text() const { return {out_.data(), used_}; }

private:
    std::span<char> out_;
    std::size_t used_ = 0;
};

void add_name(Sentence& sentence, std::span<const MemberSpec> specs, std::int16_t member) {
    const MemberSpec& spec = specs[static_cast<std::size_t>(member)];
    if (spec.parent != kRoot) {
        add_name(sentence, specs, spec.parent);  // at most kWantedMax deep: parents come first
        sentence.add(".");
    }
    sentence.add(spec.name);
}

void add_allowed(Sentence& sentence, KindMask allowed) {
    struct Phrase {
        Kind kind;
        std::string_view text;
    };
    static constexpr std::array<Phrase, 6> kPhrases{{{Kind::Bool, "true, false"},
                                                     {Kind::Number, "a number"},
                                                     {Kind::String, "a string"},
                                                     {Kind::Array, "an array"},
                                                     {Kind::Object, "an object"},
                                                     {Kind::Null, "null"}}};
    if (allowed == mask_of(Kind::Bool)) {
        sentence.add("true or false");
        return;
    }
    bool first = true;
    for (const Phrase& phrase : kPhrases) {
        if ((allowed & mask_of(phrase.kind)) == 0) {
            continue;
        }
        allowed = static_cast<KindMask>(allowed & ~mask_of(phrase.kind));
        sentence.add(first ? "" : allowed == 0 ? " or " : ", ").add(phrase.text);
        first = false;
    }
}

std::string_view explain(ScanCode code) {
    switch (code) {
        case ScanCode::Empty:
            return "the request body is empty";
        case ScanCode::TooLarge:
            return "the request body is too large";
        case ScanCode::ByteOrderMark:
            return "the request body must not begin with a byte order mark";
        case ScanCode::RootNotObject:
            return "the request body must be a JSON object";
        case ScanCode::TooDeep:
            return "the request body is nested too deeply";
        case ScanCode::UnexpectedEnd:
            return "the request body is not valid JSON: it ends too early";
        case ScanCode::ExpectedKey:
            return "the request body is not valid JSON: a member name in quotes is missing";
        case ScanCode::ExpectedColon:
            return "the request body is not valid JSON: a colon is missing";
        case ScanCode::ExpectedValue:
            return "the request body is not valid JSON: a value is missing";
        case ScanCode::ExpectedCommaOrBrace:
            return "the request body is not valid JSON: a comma or closing brace is missing";
        case ScanCode::ExpectedCommaOrBracket:
            return "the request body is not valid JSON: a comma or closing bracket is missing";
        case ScanCode::BadLiteral:
            return "the request body is not valid JSON: only true, false and null are words";
        case ScanCode::BadNumber:
            return "the request body is not valid JSON: a number is malformed";
        case ScanCode::BadEscape:
            return "the request body is not valid JSON: a string has a bad escape";
        case ScanCode::ControlCharacter:
            return "the request body is not valid JSON: a string has a raw control character";
        case ScanCode::BadUtf8:
            return "the request body is not valid UTF-8";
        case ScanCode::TrailingBytes:
            return "the request body is not valid JSON: something follows the object";
        case ScanCode::Duplicate:
            return "is given twice";
        case ScanCode::WrongType:
            return "must be ";
    }
    return "the request body cannot be read";
}

}  // namespace

std::string_view describe(const ScanError& error, std::span<const MemberSpec> specs,
                          std::span<char> out) noexcept {
    Sentence sentence(out);
    if (error.member >= 0) {
        sentence.add("member \"");
        add_name(sentence, specs, error.member);
        sentence.add("\" ").add(explain(error.code));
        if (error.code == ScanCode::WrongType) {
            add_allowed(sentence, specs[static_cast<std::size_t>(error.member)].allowed);
        }
    } else {
        sentence.add(explain(error.code));
    }
    if (error.code != ScanCode::Empty && error.code != ScanCode::TooLarge) {
        sentence.add(" (at byte ").add(error.offset).add(")");
    }
    return sentence.text();
}

}  // namespace sluice::json
