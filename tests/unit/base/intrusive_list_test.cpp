// SPDX-License-Identifier: Apache-2.0
#include "base/intrusive_list.h"

#include <gtest/gtest.h>

#include <list>
#include <memory>
#include <vector>

#include "base/rng.h"

namespace sluice {
namespace {

struct OtherTag {};

struct Item : ListNode<Item>, ListNode<OtherTag> {
    explicit Item(int v) : value(v) {}
    int value;
};

using List = IntrusiveList<Item>;
using OtherList = IntrusiveList<Item, OtherTag>;

std::vector<int> values_of(List& list) {
    std::vector<int> values;
    for (Item* each = list.front(); each != nullptr; each = list.after(*each))
        values.push_back(each->value);
    return values;
}

bool linked(const Item& item) { return static_cast<const ListNode<Item>&>(item).linked(); }

TEST(IntrusiveList, KeepsOrder) {
    List list;
    Item a(1), b(2), c(3);
    EXPECT_TRUE(list.empty());
    EXPECT_EQ(list.front(), nullptr);
    EXPECT_EQ(list.back(), nullptr);
    EXPECT_EQ(list.pop_front(), nullptr);
    list.push_back(b);
    list.push_back(c);
    list.push_front(a);
    EXPECT_EQ(values_of(list), (std::vector{1, 2, 3}));
    EXPECT_EQ(list.back(), &c);
    EXPECT_EQ(list.pop_front(), &a);
    EXPECT_FALSE(linked(a));
    EXPECT_EQ(values_of(list), (std::vector{2, 3}));
}

TEST(IntrusiveList, AnElementLeavesFromTheMiddleAndWhenDestroyed) {
    List list;
    Item a(1);
    Item c(3);
    {
        Item b(2);
        list.push_back(a);
        list.push_back(b);
        list.push_back(c);
    }
    EXPECT_EQ(values_of(list), (std::vector{1, 3}));
    static_cast<ListNode<Item>&>(a).unlink();
    static_cast<ListNode<Item>&>(a).unlink();  // harmless
    EXPECT_EQ(values_of(list), (std::vector{3}));
}

TEST(IntrusiveList, AnElementIsInOneListPerTag) {
    List list;
    OtherList other;
    Item a(1);
    list.push_back(a);
    other.push_back(a);
    EXPECT_EQ(list.pop_front(), &a);
    EXPECT_EQ(other.front(), &a);
}

TEST(IntrusiveList, TakesAllOfAnother) {
    List from;
    List to;
    Item a(1), b(2), c(3);
    to.push_back(a);
    from.push_back(b);
    from.push_back(c);
    to.take_all(from);
    EXPECT_TRUE(from.empty());
    EXPECT_EQ(values_of(to), (std::vector{1, 2, 3}));
}

TEST(IntrusiveList, ElementsOutliveTheList) {
    Item a(1);
    {
        List list;
        list.push_back(a);
    }
    EXPECT_FALSE(linked(a));
}

TEST(IntrusiveList, AgreesWithAModelUnderRandomUse) {
    Rng rng(5);
    List list;
    std::list<int> model;
    std::vector<std::unique_ptr<Item>> items;
    for (int i = 0; i < 50; ++i) items.push_back(std::make_unique<Item>(i));
    for (int step = 0; step < 5000; ++step) {
        auto& item = items[rng.below(items.size())];
        switch (rng.below(5)) {
            case 0:
                if (linked(*item)) break;
                list.push_back(*item);
                model.push_back(item->value);
                break;
            case 1:
                if (linked(*item)) break;
                list.push_front(*item);
                model.push_front(item->value);
                break;
            case 2:
                static_cast<ListNode<Item>&>(*item).unlink();
                model.remove(item->value);
                break;
            case 3:
                model.remove(item->value);
                item = std::make_unique<Item>(item->value);
                break;
            default:
                if (Item* first = list.pop_front()) {
                    ASSERT_EQ(first->value, model.front());
                    model.pop_front();
                }
        }
        ASSERT_EQ(values_of(list), std::vector<int>(model.begin(), model.end()));
    }
}

}  // namespace
}  // namespace sluice
