// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string_view>

#include "nodes/peer.h"

int main(int argc, char** argv) {
    if (argc == 6 && std::string_view(argv[1]) == "--peer")
        return sluice::kv::test::run_peer(argc, argv);
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
