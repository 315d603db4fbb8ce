// SPDX-License-Identifier: Apache-2.0
#include "pd/leg_message.h"

#include "http/head_writer.h"
#include "json/splice.h"

namespace sluice::pd {

namespace {

using http::FieldId;

// Written by us, or not for an engine: a coded answer could not be read for its first token.
constexpr http::FieldSet kReplaced =
    http::kHopByHop | http::FieldSet{FieldId::Host, FieldId::XRequestId, FieldId::XDataParallelRank,
                                     FieldId::AcceptEncoding};

// Constants that replace values, and where they lie in the text that holds them and the inserted
// members.
constexpr std::string_view kConstants = "1false,";
constexpr std::size_t kOneAt = 0;
constexpr std::size_t kFalseAt = 1;
constexpr std::size_t kCommaAt = 6;

Slice write_head(TextArena& texts, const http::RequestHead& head, const fleet::Instance& instance,
                 const LegHeadFacts& facts, std::uint64_t body_bytes) {
    TextWriter writer(texts);
    writer.append(head.method);
    writer.append(' ');
    writer.append(head.path);
    if (!head.query.empty()) {
        writer.append('?');
        writer.append(head.query);
    }
    writer.append(" HTTP/1.1\r\n");
    http::write_field(writer, "Host", instance.host_header);
    const bool own_key = !facts.upstream_api_key.empty();
    http::copy_fields(writer, head.fields,
                      own_key || facts.drop_authorization
                          ? kReplaced | http::FieldSet{FieldId::Authorization}
                          : kReplaced);
    if (own_key) {
        writer.append("Authorization: Bearer ");
        writer.append(facts.upstream_api_key);
        writer.append("\r\n");
    }
    writer.append("X-Request-Id: ");
    writer.append(facts.request_id);
    if (facts.attempt > 1) {
        writer.append("-try");
        writer.append_number(facts.attempt);
    }
    writer.append("\r\n");
    if (facts.rank != nullptr)
        http::write_field(writer, "X-data-parallel-rank", std::uint64_t{facts.rank->rank});
    writer.append("Via: 1.1 sluice\r\n");
    if (body_bytes > 0 || head.method == "POST")
        http::write_field(writer, "Content-Length", body_bytes);
    writer.append("\r\n");
    return writer.finish();
}

// Everything in one queue. `inserted` begins with kConstants and holds all that the splice inserted
// but its commas, which are the splice's own and are taken from the constants.
SliceQueue assemble(Slice head, const Slice& body, const Slice& inserted,
                    std::span<const json::Piece> pieces) {
    SliceQueue message;
    if (head.empty()) return message;
    message.push(std::move(head));
    for (const json::Piece& piece : pieces) {
        if (!piece.inserted) {
            message.push(body.part(static_cast<std::size_t>(piece.data - body.data()), piece.size));
        } else if (piece.size == 1 && *piece.data == ',') {
            message.push(inserted.part(kCommaAt, 1));
        } else {
            message.push(
                inserted.part(static_cast<std::size_t>(piece.data - inserted.data()), piece.size));
        }
    }
    return message;
}

// KV parameters come from the proxy alone: a client's could make an engine dial anywhere, or kill
// it.
void remove_client_kv_members(json::Splice& splice, const BodyScan& scan) {
    for (const BodyMember member :
         {kKvTransferParams, kEcTransferParams, kXargsKvTransferParams, kXargsEcTransferParams,
          kExtraKvTransferParams, kExtraEcTransferParams})
        if (scan[member]) splice.remove(member);
}

void remove_if_there(json::Splice& splice, const BodyScan& scan, BodyMember member) {
    if (scan[member]) splice.remove(member);
}

// The member that limits the answer's length, by API.
BodyMember length_member(json::Api api) {
    return api == json::Api::Responses ? kMaxOutputTokens : kMaxTokens;
}

}  // namespace

SliceQueue make_prefill_message(TextArena& texts, const http::RequestHead& head, const Slice& body,
                                const BodyScan& scan, json::Api api,
                                const fleet::Instance& instance, const LegHeadFacts& facts,
                                const Dialect& dialect, const AttemptFacts& attempt) {
    const BodyMember length = length_member(api);
    TextWriter writer(texts);
    writer.append(kConstants);
    writer.append("\"kv_transfer_params\":");
    dialect.write_prefill_params(writer, attempt);
    if (!scan[length])
        writer.append(length == kMaxTokens ? ",\"max_tokens\":1" : ",\"max_output_tokens\":1");
    // min_tokens 1 keeps an end-of-sequence or stop token from being the first: P hands over only
    // what ended by length.
    if (!scan[kMinTokens]) writer.append(",\"min_tokens\":1");
    const Slice text = writer.finish();
    if (text.empty()) return {};
    const std::string_view one = text.view().substr(kOneAt, 1);
    const std::string_view false_text = text.view().substr(kFalseAt, 5);

    json::Splice splice(body.view(), scan.root, scan.members);
    remove_client_kv_members(splice, scan);
    if (scan[length]) splice.replace(length, one);
    if (scan[kMinTokens]) splice.replace(kMinTokens, one);
    if (scan[kMaxCompletionTokens]) splice.replace(kMaxCompletionTokens, one);
    if (scan[kStream]) splice.replace(kStream, false_text);
    for (const BodyMember member : {kStreamOptions, kMinCompletionTokens, kN, kBestOf, kLogprobs,
                                    kTopLogprobs, kPromptLogprobs, kEcho})
        remove_if_there(splice, scan, member);
    splice.insert(json::kRoot, text.view().substr(kConstants.size()));
    const auto pieces = splice.finish();
    Slice head_slice = write_head(texts, head, instance, facts, splice.total_bytes());
    return assemble(std::move(head_slice), body, text, pieces);
}

SliceQueue make_decode_message(TextArena& texts, const http::RequestHead& head, const Slice& body,
                               const BodyScan& scan, const fleet::Instance& instance,
                               const LegHeadFacts& facts, const Dialect* dialect,
                               const AttemptFacts& attempt, std::string_view prefill_answer) {
    json::Splice splice(body.view(), scan.root, scan.members);
    remove_client_kv_members(splice, scan);
    Slice text;
    if (dialect != nullptr) {
        TextWriter writer(texts);
        writer.append(kConstants);
        writer.append("\"kv_transfer_params\":");
        dialect->write_decode_params(writer, attempt, prefill_answer);
        text = writer.finish();
        if (text.empty()) return {};
        splice.insert(json::kRoot, text.view().substr(kConstants.size()));
    }
    const auto pieces = splice.finish();
    Slice head_slice = write_head(texts, head, instance, facts, splice.total_bytes());
    return assemble(std::move(head_slice), body, text, pieces);
}

SliceQueue make_plain_message(TextArena& texts, const http::RequestHead& head, const Slice& body,
                              const fleet::Instance& instance, const LegHeadFacts& facts) {
    SliceQueue message;
    Slice head_slice = write_head(texts, head, instance, facts, body.size);
    if (head_slice.empty()) return message;
    message.push(std::move(head_slice));
    message.push(body);
    return message;
}

}  // namespace sluice::pd
