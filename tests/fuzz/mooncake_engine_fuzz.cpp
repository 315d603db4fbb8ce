// SPDX-License-Identifier: Apache-2.0
// Foreign bytes of Mooncake's transfer engine: handshakes cut anywhere, segments, requests, status
// words. What can be read is written as what would be read again; nothing held beyond what came.
#include <cstdlib>
#include <cstring>

#include "transport/mooncake/segment.h"
#include "transport/mooncake/wire.h"

using namespace sluice::transport::mooncake;

namespace {

void check(bool condition) {
    if (!condition) std::abort();
}

void check_segment(std::string_view json) {
    const auto segment = read_segment(json);
    if (!segment) return check(segment.error() != nullptr);
    check(segment->data_port != 0 && segment->name.size() <= kSegmentNameMax);
    const std::string once = write_segment(*segment);
    const auto again = read_segment(once);
    // A name that is no UTF-8 is written with its bad bytes replaced, which may be longer.
    if (again) check(write_segment(*again) == once);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::size_t step = 1U + data[0];
    const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
    check_segment(bytes);

    HandshakeReader reader;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
        const auto state = reader.take(bytes.substr(at, step));
        check(reader.held() <= 8 + kHandshakeBytesMax && reader.held() <= at + step);
        if (state == HandshakeReader::State::NeedMore) continue;
        if (state == HandshakeReader::State::Complete) {
            check(reader.type() <= HandshakeType::Probe);
            check(bytes.starts_with(write_handshake(reader.type(), reader.json())));
            check_segment(reader.json());
        }
        break;
    }

    if (bytes.size() >= kRequestHeaderBytes) {
        RequestHeader header;
        std::memcpy(header.data(), bytes.data(), header.size());
        if (const auto request = read_request(header)) {
            check(request->bytes <= kRequestBytesMax);
            check(read_request(write_request(*request)) == request);
        }
        StatusWord word;
        std::memcpy(word.data(), bytes.data(), word.size());
        if (const auto answer = read_status(word))
            check(read_status(write_status(*answer)) == answer);
    }
    return 0;
}
