// SPDX-License-Identifier: Apache-2.0
// Which paths the proxy serves, and how. Everything that is not here is answered with 404 and never
// forwarded, the engines' admin and development paths above all. Threads: any.
#pragma once

#include <cstdint>
#include <string_view>

#include "json/stream_event.h"

namespace sluice::pd {

enum class Serve : std::uint8_t {
    Unknown,
    PrefillDecode,  // a request with a prefill and a decode leg
    OneDecode,      // goes to one decode instance unchanged
    Models,
    Health,
    Ready,
    Healthcheck,  // the toy proxy's JSON
    Version,
    Metrics,
};

struct Route {
    std::string_view path;
    Serve serve = Serve::Unknown;
    bool post = false;  // POST only; otherwise GET and HEAD
    json::Api api = json::Api::Unknown;
    bool edits_kv = false;  // OneDecode whose JSON body could carry KV parameters
};

// nullptr: unknown.
const Route* find_route(std::string_view path);

}  // namespace sluice::pd
