// SPDX-License-Identifier: Apache-2.0
#include "engine/context.h"

namespace sluice::engine {

std::string random_hex(Rng& rng, std::size_t digits) {
    std::string text(digits, '0');
    for (char& c : text) c = "0123456789abcdef"[rng.below(16)];
    return text;
}

std::string random_uuid(Rng& rng) {
    std::string text = random_hex(rng, 36);
    for (const std::size_t at : {8U, 13U, 18U, 23U}) text[at] = '-';
    text[14] = '4';
    text[19] = "89ab"[rng.below(4)];
    return text;
}

}  // namespace sluice::engine
