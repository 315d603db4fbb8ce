// SPDX-License-Identifier: Apache-2.0
#include "engine/model/text.h"

#include <iterator>

#include "base/rng.h"

namespace sluice::engine {

namespace {

// Three letters each, so that a word and the space before it are one token.
constexpr std::string_view kWords =
    "ace act age aid air all and ant any ape arc ark arm art ash ask axe bay bed bee bel big bin "
    "bit bow box "
    "boy bud bus but can cap car cat cow cry cup cut day dew die dig dim dog dot dry due ear eat "
    "ebb egg elm "
    "end eye fan far fed few fig fin fir fit fix fly fog for fox fun fur gap gem get gig god got "
    "gum had ham "
    "has hat hay hen her hex hid him his hit hop hot how hub hug hum ice ink ion its ivy jam jar "
    "jet job joy "
    "key kid kin kit lab lap law lay let lid lie lip lit log lot low man map mat may men met mix "
    "mob mud net";
constexpr std::size_t kWordCount = (kWords.size() + 1) / 4;

Token pack(std::string_view bytes) {
    Token token = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        token |= static_cast<Token>(static_cast<unsigned char>(bytes[i])) << (8 * i);
    return token;
}

}  // namespace

std::uint64_t hash_text(std::string_view text, std::uint64_t seed) {
    std::uint64_t hash = 0xcbf29ce484222325ULL ^ (seed * 0x9e3779b97f4a7c15ULL);
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    return splitmix64(hash);
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    std::uint64_t state = a ^ (b * 0xd1b54a32d192ed03ULL + 0x2545f4914f6cdd1dULL);
    return splitmix64(state);
}

std::vector<Token> tokenize(std::string_view text) {
    std::vector<Token> tokens;
    tokens.reserve(count_tokens(text));
    for (std::size_t at = 0; at < text.size(); at += kBytesPerToken)
        tokens.push_back(pack(text.substr(at, kBytesPerToken)));
    return tokens;
}

void append_token_text(Token token, std::string& text) {
    do {
        text.push_back(static_cast<char>(token & 0xff));
        token >>= 8;
    } while (token != 0);
}

std::string detokenize(std::span<const Token> tokens) {
    std::string text;
    text.reserve(tokens.size() * kBytesPerToken);
    for (const Token token : tokens) append_token_text(token, text);
    return text;
}

Token Text::token(std::uint32_t position, std::uint32_t attempt) const {
    const std::uint64_t draw = mix(seed_, (std::uint64_t{attempt} << 32) | position);
    const std::string_view word = kWords.substr(draw % kWordCount * 4, 3);
    char bytes[4] = {' ', word[0], word[1], word[2]};
    // The first word begins the text and has no space.
    return position == 0 ? pack(word) : pack(std::string_view(bytes, sizeof bytes));
}

std::string expected_text(std::uint64_t prompt_hash, std::uint32_t choice, std::uint32_t tokens) {
    const Text source(prompt_hash, choice);
    std::string text;
    for (std::uint32_t i = 0; i < tokens; ++i) append_token_text(source.token(i), text);
    return text;
}

}  // namespace sluice::engine
