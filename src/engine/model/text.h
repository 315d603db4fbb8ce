// SPDX-License-Identifier: Apache-2.0
// The imaginary model's language: a tokenizer and an endless text.
//
// A token is up to four bytes of text, packed into its id, so any id can be turned back. The text
// is a sequence of words drawn by a hash of the prompt: the same prompt gives the same text on
// every engine, and another prompt another one, so an answer that continued from somebody else's KV
// shows. Threads: any (pure functions). Owns: nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::engine {

using Token = std::uint32_t;

inline constexpr std::size_t kBytesPerToken = 4;
inline constexpr Token kEndOfSequence = 151645;  // Qwen2's; no text of ours has this id

std::uint64_t hash_text(std::string_view text, std::uint64_t seed = 0);
std::uint64_t mix(std::uint64_t a, std::uint64_t b);

inline std::size_t count_tokens(std::string_view text) {
    return (text.size() + kBytesPerToken - 1) / kBytesPerToken;
}
std::vector<Token> tokenize(std::string_view text);
void append_token_text(Token token, std::string& text);
std::string detokenize(std::span<const Token> tokens);

// Token number `position` of the answer to a prompt.
class Text {
public:
    Text(std::uint64_t prompt_hash, std::uint32_t choice) : seed_(mix(prompt_hash, choice)) {}
    Token token(std::uint32_t position, std::uint32_t attempt = 0) const;

private:
    std::uint64_t seed_;
};

// The first `tokens` tokens as one string: what tests expect.
std::string expected_text(std::uint64_t prompt_hash, std::uint32_t choice, std::uint32_t tokens);

}  // namespace sluice::engine
