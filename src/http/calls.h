// SPDX-License-Identifier: Apache-2.0
// Whole HTTP requests of the control plane: /register and /query of a bootstrap server.
//
// A call ends exactly once, by its
// answer, a failure, its time-out or cancel(); the callback may start another call. Threads: one.
// Owns: the calls and the connections, one pool an address. Errors: a call that fails, or whose
// answer is larger than kAnswerMax, ends with no answer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "http/client.h"
#include "mem/text_arena.h"

namespace sluice::http {

struct CallAnswer {
    std::uint16_t status = 0;
    std::string body;
};

struct CallQuestion {
    io::Address address;
    std::string host;  // the Host field
    std::string_view method = "GET";
    std::string path = "/";
    std::string body;  // JSON
    Duration timeout = kForever;
};

class Calls {
public:
    using OnEnd = std::function<void(std::optional<CallAnswer>)>;

    explicit Calls(io::Loop& loop);
    ~Calls();

    std::uint64_t start(const CallQuestion& question, OnEnd on_end);
    void cancel(std::uint64_t call);

    // Cancels everything. Run the loop until finished().
    void stop();
    bool finished() const;

private:
    static constexpr std::size_t kAnswerMax = 4 << 20;
    static constexpr std::size_t kAddressesMax = 4096;
    class Call;

    UpstreamPool* pool_of(const io::Address& address);
    void ended(Call& call, std::optional<CallAnswer> answer);
    void purge();

    io::Loop& loop_;
    TextArena texts_;
    std::map<std::string, std::unique_ptr<UpstreamPool>> pools_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Call>> calls_;
    std::vector<std::unique_ptr<Call>> ended_;
    io::Deferred purge_;
    std::uint64_t next_ = 1;
};

}  // namespace sluice::http
