// SPDX-License-Identifier: Apache-2.0

// Chunked bodies through the body reader. The first byte seeds the cuts and the new chunks.
// Oracles:
// * any cutting gives the body, the verdict and the rest of the whole;
// * what is accepted has the body and the end that a plain reading of the grammar finds;
// * the body in other chunks reads as the same body.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "http/body_reader.h"

namespace {

using namespace sluice;
using namespace sluice::http;
using State = BodyReader::State;

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

class Random {
public:
    explicit Random(std::uint8_t seed) : state_(seed * 2U + 1U) {}
    std::size_t up_to(std::size_t most) {
        state_ = state_ * 1664525U + 1013904223U;
        return 1 + (state_ >> 16U) % most;
    }

private:
    std::uint32_t state_;
};

struct Reading {
    State state = State::NeedMore;
    std::string body;
    std::size_t used = 0;  // of the stream, if complete

    void take(Slice bytes) {
        require(!bytes.empty(), "an empty piece");
        body += bytes.view();
    }
};

// `most`: the size of the largest piece.
Reading read(BufferPool& pool, std::string_view stream, std::size_t most, Random random) {
    Reading reading;
    BodyReader reader;
    reader.start(Framing::Chunked, 0);
    for (std::size_t at = 0; at < stream.size() && reading.state == State::NeedMore;) {
        const std::string_view piece =
            stream.substr(at, most >= stream.size() ? most : random.up_to(most));
        at += piece.size();
        BufferRef buffer = pool.allocate(piece.size());
        std::memcpy(buffer.data(), piece.data(), piece.size());
        std::memset(buffer.data() + piece.size(), '\n', limits::kBufferSlack);
        reading.state =
            reader.feed({std::move(buffer), 0, static_cast<std::uint32_t>(piece.size())},
                        Delegate<void(Slice)>::to<&Reading::take>(reading));
        if (reading.state == State::Complete) {
            const Slice rest = reader.take_rest();
            require(stream.substr(at - rest.size, rest.size) == rest.view(),
                    "the rest is not the end of the piece");
            reading.used = at - rest.size;
        }
    }
    require((reading.state == State::Bad) == (reader.fault() != nullptr),
            "a fault without words, or words without one");
    return reading;
}

// RFC 9112, 7.1, as far as it tells where things end. Nothing if it is not that.
std::optional<Reading> read_plainly(std::string_view stream) {
    Reading reading;
    const auto line = [&]() -> std::optional<std::string_view> {
        const auto end = stream.find("\r\n", reading.used);
        if (end == std::string_view::npos) return std::nullopt;
        const std::string_view text = stream.substr(reading.used, end - reading.used);
        reading.used = end + 2;
        if (text.find_first_of("\r\n") != std::string_view::npos) return std::nullopt;
        return text;
    };
    while (true) {
        const auto size_line = line();
        if (!size_line) return std::nullopt;
        const std::size_t digits =
            std::min(size_line->find_first_not_of("0123456789abcdefABCDEF"), size_line->size());
        if (digits == 0 || (digits < size_line->size() && (*size_line)[digits] != ';'))
            return std::nullopt;
        const std::size_t size =
            std::strtoull(std::string(size_line->substr(0, digits)).c_str(), nullptr, 16);
        if (size == 0) break;
        if (stream.size() - reading.used < size) return std::nullopt;
        reading.body += stream.substr(reading.used, size);
        reading.used += size;
        const auto end = line();
        if (!end || !end->empty()) return std::nullopt;
    }
    while (true) {
        const auto trailer = line();
        if (!trailer) return std::nullopt;
        if (trailer->empty()) return reading;
    }
}

std::string chunk_anew(std::string_view body, Random random) {
    std::string text;
    while (!body.empty()) {
        const std::string_view chunk = body.substr(0, random.up_to(300));
        body.remove_prefix(chunk.size());
        char line[32];
        std::snprintf(line, sizeof line, "%zx\r\n", chunk.size());
        text += line + std::string(chunk) + "\r\n";
    }
    return text + "0\r\n\r\n";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0 || size > 200'000) return 0;
    const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
    const Random random(data[0]);

    static BufferPool pool(64 << 20);
    const Reading whole = read(pool, stream, stream.size(), random);
    for (const std::size_t most : {1U, 7U, 300U}) {
        const Reading cut = read(pool, stream, most, random);
        require(cut.state == whole.state, "a cut changed the verdict");
        require(cut.body == whole.body, "a cut changed the body");
        require(cut.used == whole.used, "a cut changed the end");
    }
    if (whole.state != State::Complete) return 0;
    const auto plain = read_plainly(stream);
    require(plain.has_value(), "what is accepted is not chunked");
    require(plain->body == whole.body, "a plain reading finds another body");
    require(plain->used == whole.used, "a plain reading finds another end");

    const std::string anew = chunk_anew(whole.body, random);
    for (const std::size_t most : {anew.size(), std::size_t{50}}) {
        const Reading again = read(pool, anew, most, random);
        require(again.state == State::Complete && again.used == anew.size(),
                "chunked anew, it is refused");
        require(again.body == whole.body, "chunked anew, it is another body");
    }
    return 0;
}
