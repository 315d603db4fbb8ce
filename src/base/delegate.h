// SPDX-License-Identifier: Apache-2.0
// A member function bound to its object: two words, no allocation, no ownership.
//
//   Delegate<void()> d = Delegate<void()>::to<&Leg::on_deadline>(leg);
//
// Whoever stores one must be told before the object goes away.
#pragma once

#include <utility>

namespace sluice {

template <class Signature>
class Delegate;

template <class R, class... Args>
class Delegate<R(Args...)> {
public:
    constexpr Delegate() = default;

    template <auto Method, class Object>
    static Delegate to(Object& object) {
        return Delegate(&object, [](void* target, Args... args) -> R {
            return (static_cast<Object*>(target)->*Method)(std::forward<Args>(args)...);
        });
    }

    explicit operator bool() const { return call_ != nullptr; }
    R operator()(Args... args) const { return call_(target_, std::forward<Args>(args)...); }

private:
    using Call = R (*)(void*, Args...);
    Delegate(void* target, Call call) : target_(target), call_(call) {}

    void* target_ = nullptr;
    Call call_ = nullptr;
};

}  // namespace sluice
