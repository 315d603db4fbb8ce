// SPDX-License-Identifier: Apache-2.0
// Foreign bytes of the Mooncake side channel: ZMTP frames, cut anywhere, and the messages in them.
//
// The first byte says who we are and where the bytes are cut. Whatever comes: no read outside the
// bytes, a bound on what is held, and what can be read can be forwarded and read again as the same.
#include <cstdlib>

#include "mooncake/message.h"
#include "mooncake/msgpack.h"
#include "mooncake/zmtp.h"

using namespace sluice::mooncake;

namespace {

void check(bool condition) {
    if (!condition) std::abort();
}

void read_message(std::string_view bytes) {
    MsgpackReader reader(bytes);
    if (const auto whole = reader.skip()) check(whole->size() <= bytes.size());
    if (const auto pull = read_pull(bytes)) {
        const std::string again = write_pull(*pull, pull->items);
        const auto second = read_pull(again);
        check(second && second->items.size() == pull->items.size());
        check(write_pull(*second, second->items) == again);
        for (const PullItem& item : pull->items) {
            (void)block_count(item.blocks);
            (void)block_ids(item.blocks);
        }
        const std::string empty = write_empty_pull(*pull, "r", "t");
        check(read_pull(empty).has_value());
    }
    if (const auto response = read_response(bytes)) {
        const std::string again = write_response(*response, Status::Continue);
        const auto second = read_response(again);
        // One member more than before may be one too many.
        check(response->members.size() == kMembersMax ||
              (second && second->status == Status::Continue && second->ok == response->ok &&
               second->failed == response->failed));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
    read_message(bytes);

    constexpr std::size_t kMessageMax = 4096;
    const auto own = (data[0] & 1) != 0 ? SocketType::Router : SocketType::Dealer;
    const auto other = own == SocketType::Router ? SocketType::Dealer : SocketType::Router;
    const std::size_t step = 1U + (data[0] >> 2);
    ZmtpDecoder decoder(own, kMessageMax);
    if ((data[0] & 2) != 0) {  // past the handshake
        decoder.append(zmtp_greeting() + zmtp_ready(other));
        check(decoder.next() == ZmtpDecoder::Event::Ready);
    }
    for (std::size_t at = 0; at < bytes.size(); at += step) {
        decoder.append(bytes.substr(at, step));
        while (true) {
            const auto event = decoder.next();
            if (event == ZmtpDecoder::Event::Malformed) return 0;
            if (event == ZmtpDecoder::Event::NeedMore) break;
            if (event == ZmtpDecoder::Event::Message) read_message(decoder.view());
        }
        check(decoder.buffered() <= kMessageMax + ZmtpDecoder::kFramesMax * 265 + step + 16);
    }
    return 0;
}
