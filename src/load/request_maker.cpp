// SPDX-License-Identifier: Apache-2.0
#include "load/request_maker.h"

#include "http/head_writer.h"

namespace sluice::load {

namespace {

constexpr std::string_view kFiller =
    "the prompt of this request has no meaning and only its length counts; ";

void append_mark(TextWriter& writer, std::uint64_t number) {
    constexpr std::string_view kHex = "0123456789abcdef";
    for (int shift = 60; shift >= 0; shift -= 4) writer.append(kHex[(number >> shift) & 15]);
    writer.append(' ');
}

}  // namespace

RequestMaker::RequestMaker(const LoadOptions& options, BufferPool& buffers, std::uint64_t seed)
    : options_(options), texts_(buffers), rng_(seed) {
    const auto size = static_cast<std::size_t>(options.prompt_bytes.largest());
    BufferRef buffer = buffers.allocate(size);
    if (!buffer || size == 0) return;
    for (std::size_t i = 0; i < size; ++i) buffer.data()[i] = kFiller[i % kFiller.size()];
    filler_ = Slice{std::move(buffer), 0, static_cast<std::uint32_t>(size)};
}

SliceQueue RequestMaker::make() {
    const auto prompt = static_cast<std::size_t>(options_.prompt_bytes.draw(rng_));
    const std::uint64_t tokens = options_.output_tokens.draw(rng_);
    const bool chat = options_.api == json::Api::Chat;
    const bool marked = prompt >= kMarkBytes;
    const std::size_t plain = marked ? prompt - kMarkBytes : prompt;

    TextWriter body(texts_);
    body.append("{\"model\":\"");
    body.append(options_.model);
    body.append(chat ? R"(","messages":[{"role":"user","content":")" : R"(","prompt":")");
    if (marked) append_mark(body, rng_());
    const Slice before = body.finish();
    body.append(chat ? "\"}],\"max_tokens\":" : "\",\"max_tokens\":");
    body.append_number(tokens);
    body.append(options_.stream ? ",\"stream\":true" : ",\"stream\":false");
    body.append(options_.extra_members);
    body.append('}');
    const Slice behind = body.finish();

    TextWriter head(texts_);
    head.append("POST ");
    head.append(options_.path);
    head.append(" HTTP/1.1\r\n");
    http::write_field(head, "Host", options_.authority);
    http::write_field(head, "Content-Type", "application/json");
    head.append(options_.field_lines);
    http::write_field(head, "Content-Length", before.size + plain + behind.size);
    head.append("\r\n");

    SliceQueue message;
    message.push(head.finish());
    message.push(before);
    if (plain > 0) message.push(filler_.part(0, plain));
    message.push(behind);
    return message;
}

}  // namespace sluice::load
