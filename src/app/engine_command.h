// SPDX-License-Identifier: Apache-2.0
// `sluice engine MODEL ...`: one or more stand-in engines, used as `vllm serve` is, on one thread.
// Threads: the calling one, for all of them. Errors: throws FlagError (flags.h) for a bad command
// line; 1 if an engine cannot start or dies; 0 after SIGTERM or SIGINT.
#pragma once

namespace sluice::app {

// The arguments only, without the command's name.
int run_engine_command(int argc, char** argv);

}  // namespace sluice::app
