// SPDX-License-Identifier: Apache-2.0
#include "pd/local_routes.h"

#include "base/version.h"
#include "pd/relay_metrics.h"

namespace sluice::pd {

namespace {
constexpr std::string_view kJson = "application/json";
}

void LocalRoutes::serve(Serve what) {
    switch (what) {
        case Serve::Health:
            return health();
        case Serve::Ready:
            return ready();
        case Serve::Healthcheck:
            return healthcheck();
        case Serve::Version:
            return version();
        case Serve::Models:
            return models();
        case Serve::Metrics:
            return metrics();
        case Serve::Unknown:
        case Serve::PrefillDecode:
        case Serve::OneDecode:
            UNREACHABLE();
    }
}

std::size_t LocalRoutes::usable(fleet::Role role) const {
    std::size_t count = 0;
    for (const fleet::Instance& instance : proxy_.fleet_->of(role))
        count += proxy_.can_serve(instance, role == fleet::Role::Prefill);
    return count;
}

// The process lives. Whether it can serve is /ready's business.
void LocalRoutes::health() { client_.respond(200, {}, {}); }

bool LocalRoutes::draining() const {
    return proxy_.draining_ || proxy_.shared_.draining.load(std::memory_order_relaxed);
}

bool LocalRoutes::can_serve() const {
    return !draining() && usable(fleet::Role::Decode) > 0 &&
           (usable(fleet::Role::Prefill) > 0 || proxy_.options_.decode_fallback);
}

void LocalRoutes::ready() {
    const bool ready = can_serve();
    TextWriter writer(client_.texts());
    writer.append(ready ? R"({"ready":true,"prefill":)" : R"({"ready":false,"prefill":)");
    writer.append_number(usable(fleet::Role::Prefill));
    writer.append(",\"decode\":");
    writer.append_number(usable(fleet::Role::Decode));
    writer.append(draining() ? ",\"draining\":true}" : "}");
    const Slice body = writer.finish();
    client_.respond(ready ? 200 : 503, kJson, body.view(), ready ? "" : "Retry-After: 1\r\n");
}

void LocalRoutes::healthcheck() {
    TextWriter writer(client_.texts());
    writer.append(R"({"status":"ok","prefill_instances":)");
    writer.append_number(proxy_.fleet_->prefill.size());
    writer.append(",\"decode_instances\":");
    writer.append_number(proxy_.fleet_->decode.size());
    writer.append('}');
    const Slice body = writer.finish();
    client_.respond(200, kJson, body.view());
}

void LocalRoutes::version() {
    TextWriter writer(client_.texts());
    writer.append("{\"version\":\"");
    writer.append(kVersion);
    writer.append("\",\"server\":\"sluice\"}");
    const Slice body = writer.finish();
    client_.respond(200, kJson, body.view());
}

void LocalRoutes::models() { client_.respond(200, kJson, proxy_.fleet_->models_json); }

void LocalRoutes::metrics() {
    proxy_.note_gauges();  // this worker's are as of now; the others' a few milliseconds old
    ProcessMetrics process;
    process.in_flight = proxy_.shared_.admission.in_flight();
    process.queued = proxy_.shared_.admission.queued();
    if (const AccessLog* log = proxy_.shared_.access_log) {
        process.log_lines = log->lines();
        process.log_lost = log->lost();
    }
    std::string text = render_metrics(proxy_.shared_.metrics, *proxy_.fleet_, process);
    if (proxy_.shared_.relay != nullptr)
        text += render_relay_metrics(*proxy_.shared_.relay, *proxy_.fleet_);
    client_.respond(200, "text/plain; version=0.0.4; charset=utf-8", text);
}

}  // namespace sluice::pd
