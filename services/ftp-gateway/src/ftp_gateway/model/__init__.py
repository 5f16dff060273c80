"""Types that every other package of the gateway uses: rules, outcomes and paths. Pure."""
