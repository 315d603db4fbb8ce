// SPDX-License-Identifier: Apache-2.0
// The paths that the proxy answers itself: health, readiness, version, models, metrics.
// Threads: the worker's.
#pragma once

#include "pd/proxy.h"

namespace sluice::pd {

class LocalRoutes {
public:
    LocalRoutes(Proxy& proxy, http::ServerConnection& client) : proxy_(proxy), client_(client) {}
    void serve(Serve what);
    bool can_serve() const;

private:
    void health();
    void ready();
    void healthcheck();
    void version();
    void models();
    void metrics();
    std::size_t usable(fleet::Role role) const;
    bool draining() const;

    Proxy& proxy_;
    http::ServerConnection& client_;
};

}  // namespace sluice::pd
