// SPDX-License-Identifier: Apache-2.0
#include "relay/board.h"

#include <algorithm>
#include <charconv>

namespace sluice::relay {

namespace {

constexpr std::string_view kPrefix = "xfer-";
constexpr std::size_t kIdBytes = 5 + 4 + 8 + 8 + 1 + 32;

void append_hex(std::string& out, std::uint64_t value, int digits) {
    constexpr std::string_view kHex = "0123456789abcdef";
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
        out.push_back(kHex[value >> shift & 15]);
}

template <class Value>
bool read_hex(std::string_view text, Value& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string write_transfer_id(const TransferName& name) {
    std::string out(kPrefix);
    append_hex(out, name.worker, 4);
    append_hex(out, name.slot, 8);
    append_hex(out, name.generation, 8);
    out.push_back('-');
    append_hex(out, name.secret[0], 16);
    append_hex(out, name.secret[1], 16);
    return out;
}

bool read_transfer_id(std::string_view text, TransferName& name) {
    return text.size() == kIdBytes && text.starts_with(kPrefix) && text[25] == '-' &&
           read_hex(text.substr(5, 4), name.worker) && read_hex(text.substr(9, 8), name.slot) &&
           read_hex(text.substr(17, 8), name.generation) &&
           read_hex(text.substr(26, 16), name.secret[0]) &&
           read_hex(text.substr(42, 16), name.secret[1]);
}

const Incarnation* Directory::find(std::uint64_t number) const {
    const auto found = std::ranges::find(incarnations, number, &Incarnation::number);
    return found == incarnations.end() ? nullptr : &*found;
}

const Incarnation* Directory::find(std::uint32_t prefill, std::string_view engine_id) const {
    for (const Incarnation& each : incarnations)
        if (each.prefill == prefill && each.engine_id == engine_id) return &each;
    return nullptr;
}

const Incarnation* Directory::find_relay_id(std::string_view relay_id) const {
    const auto found = std::ranges::find(incarnations, relay_id, &Incarnation::relay_id);
    return found == incarnations.end() ? nullptr : &*found;
}

Board::Board(const RelayOptions& options, std::size_t workers)
    : options_(options),
      directory_(std::make_shared<Directory>()),
      rings_(workers),
      io_(workers, nullptr),
      metrics_() {
    for (std::size_t to = 0; to < workers; ++to)
        for (std::size_t from = 0; from < workers; ++from)
            rings_[to].push_back(from == to ? nullptr : std::make_unique<SpscRing<Note>>(kRing));
}

void Board::set_io(std::size_t worker, io::Io& io, const RelayMetrics& metrics) {
    io_[worker] = &io;
    metrics_.push_back(&metrics);
}

}  // namespace sluice::relay
