"""Lists of words by which icons are selected and named."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALWAYS_STYLE = _words("outline outlined filled duotone twotone")
"""Style words that a set may use without declaring them."""
OFTEN_STYLE = _words("""
    alt bold broken color colored duo fill flat light line linear o regular round rounded sharp solid stroke thin tone
    variant 12 14 16 20 24 28 32 48 12px 14px 16px 20px 24px 28px 32px 48px
""")
"""Style words that say something else in other names (traffic-light, chart-line): they count in sets that pair them."""
TRIVIAL_CATEGORIES = _words("""
    general basic core common misc other others regular ui essential default interface system custom
""")
"""Words of which the categories consist that say nothing."""
BRAND_WORDS = _words("""
    adobe amazon android aws bitcoin brand dogecoin dropbox ethereum facebook figma firefox github gitlab google
    instagram ios linkedin litecoin logo logos mastercard microsoft paypal pinterest reddit skype slack snapchat
    spotify telegram tiktok twitch twitter vimeo wechat whatsapp wordpress xbox youtube
""")
"""An icon with one of these words in its name is a brand's."""
ORDINARY_BRANDS = _words("""
    amp arc arm astro atom beat blender blueprint brave buddy buffer chef composer css delicious discourse discover
    drizzle drone edge effect elastic element ember flask genius glide grunt helm hive ideal insomnia intercom js json
    kick launchpad less linear loom markdown matrix messenger mix mixer origin oracle overcast passport periscope
    pocket postman puppet rail react relay ripple root rss rust ruby sentry serverless shortcut sketch spectrum
    spotlight spring steam stylus svg swarm swift unity vault vine workplace
""")
"""Names of brands that say what other icons of that name show."""
