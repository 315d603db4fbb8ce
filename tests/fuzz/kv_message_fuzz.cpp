// SPDX-License-Identifier: Apache-2.0

// A control connection's bytes. Oracles: what is read as a message is written as the same bytes,
// and a stream that is cut in two reads as it does whole.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "kv/message.h"

namespace {

using namespace sluice::kv;

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

std::vector<std::string> cut(std::string_view bytes, std::size_t first, bool& ok) {
    std::vector<std::string> messages;
    MessageReader reader;
    for (const std::string_view part : {bytes.substr(0, first), bytes.substr(first)}) {
        ok = reader.feed(part);
        while (const auto message = ok ? reader.next() : std::nullopt)
            messages.emplace_back(*message);
        if (!ok) break;
    }
    return messages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    if (const auto message = read_message(bytes)) {
        const bool other_version = std::holds_alternative<Hello>(*message) &&
                                   std::get<Hello>(*message).version != kProtocolVersion;
        if (!other_version)
            require(std::string_view(write_message(*message)).substr(4) == bytes, "spelling");
    }
    bool whole_ok = true, cut_ok = true;
    const auto whole = cut(bytes, bytes.size(), whole_ok);
    const auto parts = cut(bytes, size == 0 ? 0 : data[0] % (size + 1), cut_ok);
    require(whole_ok == cut_ok && (!whole_ok || whole == parts), "cut");
    for (const std::string& each : whole) (void)read_message(each);
    return 0;
}
