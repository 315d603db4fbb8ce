// SPDX-License-Identifier: Apache-2.0
// The product's Resolver: getaddrinfo on a thread of its own.
//
// getaddrinfo blocks and cannot be interrupted: with a dead name server it sits there for half a
// minute, with a broken NSS module for ever. So the thread shares its state with this object and is
// left behind if it is stuck when the object goes; whatever it finds after that is dropped. A
// name's addresses come IPv4 first (engines listen on 0.0.0.0 unless told otherwise, also where the
// name is "localhost"), each kind in byte order: name servers rotate their answers, and an instance
// must not move about.
// Threads: the keeper's for everything here. Owns: the thread, as said. Costs: numeric hosts need
// no thread. Errors: in the answers; a question too many is answered with LimitReached at once.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fleet/keeper.h"

namespace sluice::fleet {

using Lookup =
    std::function<Result<std::vector<io::Address>>(const std::string& host, std::uint16_t port)>;

// What the resolver asks unless told otherwise.
Result<std::vector<io::Address>> look_up_with_getaddrinfo(const std::string& host,
                                                          std::uint16_t port);

class ThreadResolver final : public Resolver {
public:
    static constexpr std::size_t kQuestionsMax = 256;  // twice what a full fleet asks

    // `wake` is called on the resolver's thread when there is an answer: the loop's io().wake().
    explicit ThreadResolver(std::function<void()> wake, Lookup lookup = look_up_with_getaddrinfo);
    ~ThreadResolver() override;

    // A question that still waits is not asked twice.
    void ask(std::string host, std::uint16_t port) override;
    std::vector<Answer> take_answers() override;

private:
    struct Shared;
    std::shared_ptr<Shared> shared_;
};

}  // namespace sluice::fleet
