// SPDX-License-Identifier: Apache-2.0
#include "pd/routes.h"

namespace sluice::pd {

namespace {

using json::Api;

constexpr Route post(std::string_view path, Serve serve, Api api = Api::Unknown,
                     bool edits_kv = false) {
    return {path, serve, true, api, edits_kv};
}
constexpr Route get(std::string_view path, Serve serve) {
    return {path, serve, false, Api::Unknown, false};
}

// The most frequent first.
constexpr Route kRoutes[] = {
    post("/v1/chat/completions", Serve::PrefillDecode, Api::Chat),
    post("/v1/completions", Serve::PrefillDecode, Api::Completions),
    post("/v1/responses", Serve::PrefillDecode, Api::Responses),
    post("/v1/messages", Serve::PrefillDecode, Api::Messages),
    get("/v1/models", Serve::Models),
    get("/health", Serve::Health),
    get("/ready", Serve::Ready),
    get("/metrics", Serve::Metrics),
    get("/version", Serve::Version),
    get("/healthcheck", Serve::Healthcheck),
    post("/tokenize", Serve::OneDecode),
    post("/detokenize", Serve::OneDecode),
    post("/v1/embeddings", Serve::OneDecode),
    post("/v2/embed", Serve::OneDecode),
    post("/pooling", Serve::OneDecode),
    post("/classify", Serve::OneDecode),
    post("/score", Serve::OneDecode),
    post("/v1/score", Serve::OneDecode),
    post("/rerank", Serve::OneDecode),
    post("/v1/rerank", Serve::OneDecode),
    post("/v2/rerank", Serve::OneDecode),
    post("/generative_scoring", Serve::OneDecode),
    post("/v1/messages/count_tokens", Serve::OneDecode),
    post("/v1/chat/completions/batch", Serve::OneDecode, Api::Unknown, true),
    post("/inference/v1/generate", Serve::OneDecode, Api::Unknown, true),
    post("/v1/audio/transcriptions", Serve::OneDecode),
    post("/v1/audio/translations", Serve::OneDecode),
};

}  // namespace

const Route* find_route(std::string_view path) {
    for (const Route& route : kRoutes)
        if (route.path == path) return &route;
    return nullptr;
}

}  // namespace sluice::pd
