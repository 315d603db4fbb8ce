// SPDX-License-Identifier: Apache-2.0
// `sluice doctor --kv` against running nodes.
#include "app/doctor_kv.h"

#include <gtest/gtest.h>

#include <sluice/kv.h>

#include "unit/kv/model.h"

namespace sluice::app {
namespace {

using kv::test::Model;
using kv::test::RankMemory;

std::unique_ptr<kv::Node> start(const RankMemory& memory, std::uint32_t kv_heads) {
    kv::Options options;
    options.engine_id = "e";
    options.kv_heads = kv_heads;
    options.token = "secret";
    options.sender_threads = 1;
    auto node = kv::Node::create(options, memory.regions);
    EXPECT_TRUE(node.has_value()) << (node ? "" : node.error().sentence);
    return node ? std::move(*node) : nullptr;
}

TEST(DoctorKv, SaysWhichTransportAndWhyNoOther) {
    const RankMemory memory({}, {});
    const auto p = start(memory, 4), c = start(memory, 4);
    const KvReport report = examine_kv_pair({p->address(), c->address()}, "secret");
    EXPECT_TRUE(report.ok) << report.text;
    EXPECT_NE(report.text.find("used tcp"), std::string::npos) << report.text;
    EXPECT_NE(report.text.find("private memory, not a memfd"), std::string::npos) << report.text;
}

TEST(DoctorKv, SaysWhatDoesNotFit) {
    const RankMemory memory({}, {}), other({.tokens = 8}, {});
    const auto p = start(memory, 4), c = start(other, 4);
    const KvReport report = examine_kv_pair({p->address(), c->address()}, "secret");
    EXPECT_FALSE(report.ok);
    EXPECT_NE(report.text.find("they do not fit"), std::string::npos) << report.text;
    EXPECT_NE(examine_kv_pair({p->address(), c->address()}, "wrong").text.find("WrongToken"),
              std::string::npos);
    EXPECT_FALSE(examine_kv_pair({p->address()}, "").ok);
    EXPECT_NE(examine_kv_pair({"nonsense", c->address()}, "").text.find("no address of a node"),
              std::string::npos);
    EXPECT_NE(examine_kv_pair({"127.0.0.1:1", c->address()}, "").text.find("PeerLost"),
              std::string::npos);
}

}  // namespace
}  // namespace sluice::app
