// SPDX-License-Identifier: Apache-2.0
// The first snapshot, from the command line.
#include <set>

#include "fleet/keeper.h"
#include "fleet/url.h"

namespace sluice::fleet {

namespace {

// What can be said of a prefill before anybody was asked. A kind of Unknown gets no P/D request.
DialectKind first_dialect(const InstanceSpec& spec, Role role, KvConnector connector) {
    if (role == Role::Decode) return DialectKind::Unknown;  // the prefill's decides
    if (connector == KvConnector::Nixl) return DialectKind::Nixl;
    if (connector == KvConnector::Auto && spec.bootstrap_port == 0) return DialectKind::Nixl;
    return DialectKind::Unknown;
}

std::unexpected<std::string> refuse(Role role, const std::string& why) {
    return std::unexpected(std::string(name_of(role)) + " instance " + why);
}

std::expected<std::vector<Instance>, std::string> make_role(const std::vector<InstanceSpec>& specs,
                                                            Role role, KvConnector connector) {
    if (specs.size() > limits::kInstancesMax)
        return std::unexpected(std::to_string(specs.size()) + " " + std::string(name_of(role)) +
                               " instances; allowed are at most " +
                               std::to_string(limits::kInstancesMax));
    std::vector<Instance> instances;
    std::set<std::string> known;
    for (const InstanceSpec& spec : specs) {
        const auto endpoint = parse_url(spec.url);
        if (!endpoint) return refuse(role, endpoint.error());
        if (!known.insert(endpoint->identity()).second)
            return refuse(role, "\"" + spec.url +
                                    "\" is given twice; allowed is each address once in a role");
        Instance instance;
        instance.index = static_cast<std::uint32_t>(instances.size());
        instance.role = role;
        instance.url = spec.url;
        instance.host_header = endpoint->authority();
        instance.address = endpoint->address;
        instance.dialect = first_dialect(spec, role, connector);
        if (role == Role::Prefill && spec.bootstrap_port != 0 && connector != KvConnector::Nixl)
            instance.bootstrap_url = "http://" + endpoint->authority_at(spec.bootstrap_port);
        instance.state = std::make_shared<InstanceState>();
        instances.push_back(std::move(instance));
    }
    return instances;
}

}  // namespace

std::expected<std::shared_ptr<const FleetSnapshot>, std::string> make_fleet(
    const std::vector<InstanceSpec>& prefill, const std::vector<InstanceSpec>& decode,
    KvConnector connector) {
    auto fleet = std::make_shared<FleetSnapshot>();
    auto prefills = make_role(prefill, Role::Prefill, connector);
    if (!prefills) return std::unexpected(std::move(prefills.error()));
    auto decodes = make_role(decode, Role::Decode, connector);
    if (!decodes) return std::unexpected(std::move(decodes.error()));
    fleet->prefill = std::move(*prefills);
    fleet->decode = std::move(*decodes);
    return fleet;
}

}  // namespace sluice::fleet
