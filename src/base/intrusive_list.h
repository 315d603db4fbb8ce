// SPDX-License-Identifier: Apache-2.0
// A doubly linked list whose links live in the elements: O(1) removal, no allocation.
//
// An element derives from ListNode<Tag> and is in at most one list per Tag. It unlinks itself when
// destroyed. Threads: one. Owns: nothing.
#pragma once

#include <cstddef>

#include "base/assert.h"

namespace sluice {

template <class Tag>
class ListNode {
public:
    ListNode() = default;
    ListNode(const ListNode&) = delete;
    ListNode& operator=(const ListNode&) = delete;
    ~ListNode() { unlink(); }

    bool linked() const { return next_ != nullptr; }

    void unlink() {
        if (!linked()) return;
        previous_->next_ = next_;
        next_->previous_ = previous_;
        next_ = previous_ = nullptr;
    }

private:
    template <class T, class U>
    friend class IntrusiveList;
    ListNode* next_ = nullptr;
    ListNode* previous_ = nullptr;
};

template <class T, class Tag = T>
class IntrusiveList {
public:
    using Node = ListNode<Tag>;

    IntrusiveList() { head_.next_ = head_.previous_ = &head_; }
    IntrusiveList(const IntrusiveList&) = delete;
    IntrusiveList& operator=(const IntrusiveList&) = delete;
    ~IntrusiveList() {
        while (pop_front() != nullptr) {
        }
        head_.next_ = head_.previous_ = nullptr;
    }

    bool empty() const { return head_.next_ == &head_; }
    T* front() { return empty() ? nullptr : static_cast<T*>(head_.next_); }
    T* back() { return empty() ? nullptr : static_cast<T*>(head_.previous_); }
    T* after(T& element) {
        Node* next = static_cast<Node&>(element).next_;
        return next == &head_ ? nullptr : static_cast<T*>(next);
    }

    void push_back(T& element) { insert_before(head_, element); }
    void push_front(T& element) { insert_before(*head_.next_, element); }

    T* pop_front() {
        T* element = front();
        if (element != nullptr) static_cast<Node*>(element)->unlink();
        return element;
    }

    // Moves every element of `other` to the end of this list.
    void take_all(IntrusiveList& other) {
        while (T* element = other.pop_front()) push_back(*element);
    }

private:
    static void insert_before(Node& position, T& element) {
        Node& node = element;
        DCHECK(!node.linked());
        node.previous_ = position.previous_;
        node.next_ = &position;
        position.previous_->next_ = &node;
        position.previous_ = &node;
    }

    Node head_;
};

}  // namespace sluice
