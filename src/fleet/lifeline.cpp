// SPDX-License-Identifier: Apache-2.0
#include "fleet/lifeline.h"

namespace sluice::fleet {

Lifeline::Lifeline(io::Loop& loop, Delegate<void()> broke)
    : loop_(loop),
      broke_(broke),
      stream_(loop, *this),
      rest_(Delegate<void()>::to<&Lifeline::connect>(*this)) {}

void Lifeline::hold(const io::Address& peer, bool a_new_life) {
    if (!stream_.idle()) {
        if (!(peer == peer_)) let_go();  // the next hold() connects
        return;
    }
    peer_ = peer;
    const Duration since = tried_ && !a_new_life ? loop_.now() - tried_at_ : kRest;
    if (since < kRest) return loop_.arm(rest_, kRest - since);
    connect();
}

void Lifeline::connect() {
    if (!stream_.idle()) return;
    tried_ = true;
    tried_at_ = loop_.now();
    // Without a descriptor to spare there is no lifeline; the next round tries again.
    if (stream_.connect(peer_)) stream_.set_reading(true);
}

void Lifeline::let_go() {
    rest_.cancel();
    stream_.close();
}

void Lifeline::over() {
    stream_.close();
    broke_();
}

}  // namespace sluice::fleet
