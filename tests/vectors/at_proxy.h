// SPDX-License-Identifier: Apache-2.0
// What the HTTP vectors become when the whole proxy reads them and not its parser alone.
//
// The verdicts are the list's. Where the proxy's answer depends on more than HTTP:
//   1. The list mostly asks for `/`, which the proxy does not serve. In the first request line
//      `POST / ` becomes `POST /tokenize `, which goes to a decode with its body unchanged, and
//      `GET / ` and `HEAD / ` ask for /health, which the proxy answers. A head that is near a limit
//      of size stays as it is.
//   2. What is accepted and not served is answered with 404 or 405. That is told by the head alone,
//      so the proxy is stricter: a body behind it is not read, whatever is wrong with it, and the
//      connection closes.
//   3. A request with two legs whose body is no JSON is answered with 400; the connection stays.
//   4. A client that sends on behind its own `Connection: close` may find the connection reset once
//      it has its answer.
// Of answers to the proxy:
//   5. HEAD is never asked of an engine, so `to HEAD` does not apply.
#pragma once

#include <string>
#include <vector>

#include "support/http_bench.h"
#include "support/http_vectors.h"

namespace sluice::test {

struct AtProxy {
    struct Expected {
        int status = 0;  // 0: a decode's, to `body`
        bool to_head = false;
        std::string path;
        std::string body;

        bool forwarded() const { return status == 0; }
    };

    explicit AtProxy(const HttpVector& vector);

    std::string bytes;
    std::vector<Expected> answers;
    bool may_continue = false;
    bool closes = false;      // after the last answer
    bool may_reset = false;   // ... with what comes behind unread
    bool incomplete = false;  // a message has begun that never ends

    std::vector<bool> heads() const;
};

// An answer as it came, without its 100s.
std::vector<Answer> final_answers(std::string_view received, bool ended, const AtProxy& expected);

}  // namespace sluice::test
