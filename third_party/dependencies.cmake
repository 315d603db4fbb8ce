# SPDX-License-Identifier: Apache-2.0
#
# Every library that Sluice uses: the oldest version it is built and tested with (Debian 12's unless said otherwise),
# its licence, and why it is here. Nothing is copied into this repository and nothing is downloaded by CMake:
# scripts/setup installs the distribution's packages and, where those are too old, puts pinned ones into .deps/.
#
# Each becomes a target third_party_<name>, which is what sluice_library(... THIRD_PARTY <name>) links. Their headers
# count as system headers (imported targets do), so our warnings do not apply to them.

list(PREPEND CMAKE_PREFIX_PATH "${PROJECT_SOURCE_DIR}/.deps")

# sluice_third_party(<name> <version> <imported target>...)
# The version is compared here: some packages' own check refuses every other minor release, newer ones too.
function(sluice_third_party name version)
    if(NOT TARGET PkgConfig::${name})
        find_package(${name} QUIET)
        if(NOT ${name}_FOUND OR ${name}_VERSION VERSION_LESS version)
            message(FATAL_ERROR "${name} >= ${version} is missing. Run: scripts/setup")
        endif()
    endif()
    add_library(third_party_${name} INTERFACE)
    target_link_libraries(third_party_${name} INTERFACE ${ARGN})
endfunction()

find_package(PkgConfig QUIET)
if(NOT PKG_CONFIG_FOUND)
    message(FATAL_ERROR "pkg-config is missing. Run: scripts/setup")
endif()
find_package(Threads REQUIRED)

# liburing, MIT. All network I/O. 2.9 is the first Debian ships that has everything we use: buffer rings, multishot
# with incremental buffers, send bundles, socket commands, waits with a minimum time. Debian 13; .deps/ on Debian 12.
pkg_check_modules(liburing QUIET IMPORTED_TARGET liburing>=2.9)
sluice_third_party(liburing 2.9 PkgConfig::liburing)

# llhttp, MIT. The HTTP/1.1 tokenizer. Older releases accept forms of request smuggling that 9.2 refuses.
# Debian 13; .deps/ on Debian 12.
pkg_check_modules(llhttp QUIET IMPORTED_TARGET libllhttp>=9.2)
sluice_third_party(llhttp 9.2 PkgConfig::llhttp)

# simdjson, Apache-2.0. One walk over a request's body, and validation, at memory speed.
sluice_third_party(simdjson 3.0 simdjson::simdjson)

# fmt, MIT, and spdlog, MIT. Log lines; libstdc++ 12 has no std::format.
sluice_third_party(fmt 9.1 fmt::fmt)
sluice_third_party(spdlog 1.10 spdlog::spdlog)

# CLI11, BSD-3-Clause. The command line.
sluice_third_party(CLI11 2.1 CLI11::CLI11)

# toml++, MIT. The configuration file.
sluice_third_party(tomlplusplus 3.3 tomlplusplus::tomlplusplus)

# nlohmann-json, MIT. JSON trees in the stand-in engine and in tests, where convenience counts and speed does not.
sluice_third_party(nlohmann_json 3.11 nlohmann_json::nlohmann_json)

# mimalloc, MIT. The product's allocator in release: what is left to allocate then costs less and fragments less.
if(SLUICE_MIMALLOC)
    sluice_third_party(mimalloc 2.0 mimalloc)
endif()

# GoogleTest, BSD-3-Clause. Tests.
if(NOT SLUICE_FUZZ)
    sluice_third_party(GTest 1.12 GTest::gmock GTest::gtest GTest::gtest_main)
endif()

# libzmq, MPL-2.0. Tests only: the other side of our own ZMTP (src/mooncake/zmtp.h says why it is our own).
if(NOT SLUICE_FUZZ)
    pkg_check_modules(libzmq QUIET IMPORTED_TARGET libzmq>=4.3)
    sluice_third_party(libzmq 4.3 PkgConfig::libzmq)
endif()

# Google Benchmark, Apache-2.0. Microbenchmarks.
if(SLUICE_PERF)
    sluice_third_party(benchmark 1.7 benchmark::benchmark benchmark::benchmark_main)
endif()
