"""Each rule of `docs/exchange-rules.md` by hand: what is asked, and what the last line must be answered with.

A line that begins with a number sign changes the venue or the instrument; see `test_rule_examples.py`.
"""

from __future__ import annotations

from typing import Final

# Instruments: AAA with reference 100, band 50; BBB with reference 50, band 25.
EXAMPLES: Final = {
    "T2 what is due comes first, in order": (
        ["ann buy 1 @99 gtt=9", "ann buy 2 @98 gtt=4", "+10s tick"],
        ["expire 2 2@98", "expire 1 1@99", "ticked"],
    ),
    "C2 same id, whatever the contents": (["open", "ann cancel 7"], ["no unknown_order"]),
    "C8 no lots": (["ann buy 0 @100"], ["no bad_quantity"]),
    "C11 beyond the band": (["ann buy 1 @151"], ["no price_out_of_band"]),
    "C15 nobody there": (["ann buy 1 market"], ["no no_liquidity"]),
    "C16 post-only": (["bob sell 1 @100", "ann buy 1 @100 post"], ["no post_only_would_trade"]),
    "C16 an all-or-none that is too large would not trade": (
        ["bob sell 5 @100 aon", "ann buy 1 @100 post"],
        ["take 2", "rest 2 1@100"],
    ),
    "F1 the maker's price, best first, oldest first": (
        ["ann sell 1 @101", "bob sell 2 @100", "cid sell 3 @100", "dan buy 7 @101"],
        ["take 4", "trade 2@100 2<4", "trade 3@100 3<4", "trade 1@101 1<4", "rest 4 1@101"],
    ),
    "F2 filled in part, still first": (
        ["ann buy 5 @100", "bob buy 5 @100", "cid sell 2 @100", "cid sell 4 @100"],
        ["take 4", "trade 3@100 1<4", "trade 1@100 2<4"],
    ),
    "F3 what is left of a market order": (
        ["ann sell 2 @120", "bob buy 5 market"],
        ["take 2", "trade 2@120 1<2", "cancel 2 3 market_remainder"],
    ),
    "F4 F5 a cascade: the lowest trigger first, each whole": (
        [
            "ann sell 1 @100",
            "ann sell 1 @102",
            "ann sell 1 @104",
            "bob buy 1 stop 102 @104",
            "cid buy 1 stop 100",
            "dan buy 1 @100",
        ],
        ["take 6", "trade 1@100 1<6", "trigger 5", "trade 1@102 2<5", "trigger 4", "trade 1@104 3<4"],
    ),
    "F5 buys before sells, then by age": (
        [
            "ann buy 1 @100",
            "ann sell 1 @101",
            "bob sell 1 stop 100",
            "cid buy 1 stop 100 @90",
            "dan buy 1 stop 100 @91",
            "eve sell 1 @100",
        ],
        [
            "take 6",
            "trade 1@100 1<6",
            "trigger 4",
            "rest 4 1@90",
            "trigger 5",
            "rest 5 1@91",
            "trigger 3",
            "trade 1@91 5<3",
        ],
    ),
    "F6 reached when it comes in": (
        ["ann sell 2 @100", "bob buy 1 @100", "cid buy 1 stop 99"],
        ["take 3", "trigger 3", "trade 1@100 1<3"],
    ),
    "F7 what an ioc leaves": (
        ["ann sell 2 @100", "bob buy 5 @100 ioc"],
        ["take 2", "trade 2@100 1<2", "cancel 2 3 ioc_remainder"],
    ),
    "F7 fok adds the makers up": (
        ["ann sell 2 @100", "bob sell 3 @101", "cid buy 5 @101 fok"],
        ["take 3", "trade 2@100 1<3", "trade 3@101 2<3"],
    ),
    "F7 fok does not count what stands beyond": (
        ["ann sell 2 @100", "bob sell 3 @102", "cid buy 5 @101 fok"],
        ["take 3", "cancel 3 5 fok_unfilled"],
    ),
    "F7 fok does not count own orders": (
        ["ann sell 2 @100", "bob sell 3 @100", "ann buy 4 @100 fok oldest"],
        ["take 3", "cancel 3 4 fok_unfilled"],
    ),
    "F8 the close": (
        [
            "ann buy 1 @100",
            "ann buy 2 @99 gtc",
            "bob sell 3 @110",
            "bob sell 4 stop 90 gtc",
            "bob sell 5 stop 90 @80",
            "close",
        ],
        ["expire 1 1@100", "expire 3 3@110", "expire 5 5@80", "sessionclosed"],
    ),
    "F10 an iceberg goes behind": (
        ["ann sell 6 @100 show=2", "bob sell 2 @100", "cid buy 5 @100"],
        ["take 3", "trade 2@100 1<3", "again 1 2@100", "trade 2@100 2<3", "trade 1@100 1<3"],
    ),
    "F10 a taker has its whole quantity": (
        ["ann sell 4 @100", "bob buy 9 @100 show=2"],
        ["take 2", "trade 4@100 1<2", "rest 2 2@100"],
    ),
    "F12 all-or-none waits": (["ann sell 3 @100", "bob buy 5 @100 aon"], ["take 2"]),
    "F13 an all-or-none that is too large is passed over": (
        ["ann sell 5 @100 aon", "bob sell 2 @100", "cid buy 4 @100"],
        ["take 3", "trade 2@100 2<3", "rest 3 2@100"],
    ),
    "F14 and trades when the book can fill it": (
        ["ann sell 5 @100 aon", "bob buy 3 @101", "cid buy 2 @100"],
        ["take 3", "rest 3 2@100", "trade 3@101 2<1", "trade 2@100 3<1"],
    ),
    "F15 less keeps the place": (
        ["ann buy 5 @100", "bob buy 5 @100", "ann replace 1 4 @100", "cid sell 4 @100"],
        ["take 3", "trade 4@100 1<3"],
    ),
    "F15 more loses it": (
        ["ann buy 5 @100", "bob buy 5 @100", "ann replace 1 6 @100", "cid sell 5 @100"],
        ["take 3", "trade 5@100 2<3"],
    ),
    "F15 hidden lots go first": (
        ["ann buy 9 @100 show=3", "ann replace 1 4 @100", "bob sell 3 @100"],
        ["take 2", "trade 3@100 1<2", "again 1 1@100"],
    ),
    "F15 another price is matched": (
        ["ann buy 5 @99", "bob sell 2 @100", "ann replace 1 5 @100"],
        ["replace 1 5@100 lost", "trade 2@100 2<1", "rest 1 3@100"],
    ),
    "F16 a stop's trigger": (
        ["ann buy 1 stop 110", "bob sell 2 @100", "cid buy 1 @100", "ann replace 1 1 @0 trigger=100"],
        ["replace 1 1@100 kept", "trigger 1", "trade 1@100 2<1"],
    ),
    "S2 newest": (
        ["ann sell 2 @101", "bob sell 1 @100", "ann buy 5 @101 newest"],
        ["take 3", "trade 1@100 2<3", "cancel 3 4 self_trade"],
    ),
    "S2 oldest": (
        ["ann sell 6 @100 show=2", "bob sell 1 @101", "ann buy 5 @101 oldest"],
        ["take 3", "cancel 1 6 self_trade", "trade 1@101 2<3", "rest 3 4@101"],
    ),
    "S2 both": (
        ["ann sell 2 @100", "bob sell 1 @101", "ann buy 5 @101 both"],
        ["take 3", "cancel 1 2 self_trade", "cancel 3 5 self_trade"],
    ),
    "S3 decrement": (
        ["ann sell 2 @100", "bob sell 1 @101", "ann buy 5 @101 decrement"],
        ["take 3", "cancel 1 2 self_trade", "cancel 3 2 self_trade left 3", "trade 1@101 2<3", "rest 3 2@101"],
    ),
    "S5 an all-or-none passes over own orders": (
        ["ann sell 5 @100", "bob sell 2 @100", "ann buy 2 @100 aon oldest"],
        ["take 3", "trade 2@100 2<3"],
    ),
    "A1 A5 most volume, at one price": (
        [
            "phase opening_auction",
            "ann buy 5 @102",
            "bob buy 3 @101",
            "cid sell 4 @99",
            "dan sell 3 @101",
            "phase continuous",
        ],
        ["cross 7@101 surplus 1", "trade 4@101 1<3", "trade 1@101 1<4", "trade 2@101 2<4", "phase all continuous"],
    ),
    "A2 more to buy: the highest": (
        ["phase opening_auction", "ann buy 9 @104", "bob sell 5 @99", "phase continuous"],
        ["cross 5@104 surplus 4", "trade 5@104 1<2", "phase all continuous"],
    ),
    "A2 more to sell: the lowest": (
        ["phase opening_auction", "ann buy 5 @104", "bob sell 9 @99", "phase continuous"],
        ["cross 5@99 surplus -4", "trade 5@99 1<2", "phase all continuous"],
    ),
    "A2 even: the reference": (
        ["phase opening_auction", "ann buy 5 @104", "bob sell 5 @99", "phase continuous"],
        ["cross 5@100 surplus 0", "trade 5@100 1<2", "phase all continuous"],
    ),
    "A3 market orders only": (
        ["phase opening_auction", "ann buy 5 market", "bob sell 3 market", "phase continuous"],
        ["cross 3@100 surplus 2", "trade 3@100 1<2", "cancel 1 2 market_remainder", "phase all continuous"],
    ),
    "A5 market orders first": (
        ["phase opening_auction", "ann buy 2 @104", "bob buy 2 market", "cid sell 3 @100", "phase continuous"],
        ["cross 3@104 surplus 1", "trade 2@104 2<3", "trade 1@104 1<3", "phase all continuous"],
    ),
    "P9 a turn takes the place of a reopening auction": (
        ["halt AAA", "resume AAA auction", "phase intraday_auction AAA", "+301s tick"],
        ["ticked"],
    ),
    "P5 closing an auction": (
        ["phase closing_auction", "ann buy 2 @100", "bob sell 1 @100", "close"],
        ["cross 1@100 surplus 1", "trade 1@100 1<2", "expire 1 1@100", "sessionclosed"],
    ),
    "P cancelling passes in a halt": (["ann buy 1 @100", "halt", "ann cancel 1"], ["cancel 1 1 requested"]),
    "P nothing new in a halt": (["halt AAA", "ann buy 1 @100"], ["no halted"]),
    "P no ioc in an auction": (["phase pre_open", "ann buy 1 @100 ioc"], ["no wrong_phase"]),
    "P nothing after the close": (["phase post_close", "ann buy 1 @100"], ["no wrong_phase"]),
    "R6 mass cancel by id": (
        [
            "ann buy 1 @100",
            "ann sell 2 @110",
            "ann buy 3 @101 BBB",
            "ann buy 3 @51 BBB",
            "bob buy 1 @90",
            "ann mass buy",
        ],
        ["cancel 1 1 mass_cancel", "cancel 3 3 mass_cancel", "gone 2"],
    ),
    "R6 by session": (
        ["ann buy 1 @100 session=x", "ann buy 2 @100 session=y", "ann mass session=y"],
        ["cancel 2 2 mass_cancel", "gone 1"],
    ),
    "R7 the kill switch": (["disable ann", "ann buy 1 @100"], ["no account_disabled"]),
}

BANDS: Final = {
    "B3 B4 a taker stops at the band": (
        ["ann sell 1 @100", "bob sell 5 @112", "cid buy 4 @115"],
        ["take 3", "trade 1@100 1<3", "rest 3 3@110", "limit in 90-110"],
    ),
    "B2 the reference follows the mean from one in a hundred on": (
        ["ann sell 1 @105", "bob buy 1 @105", "cid buy 4 @118"],
        ["take 3", "rest 3 4@115", "limit in 95-115"],
    ),
    "B3 a market order's rest": (
        ["ann sell 1 @105", "bob sell 5 @112", "cid buy 4 market"],
        ["take 3", "trade 1@105 1<3", "cancel 3 3 market_remainder"],
    ),
    "B4 over when it no longer holds": (
        ["ann buy 1 @110", "ann cancel 1"],
        ["cancel 1 1 requested", "limit out 90-110"],
    ),
    "B5 from limit state to pause": (["ann buy 1 @112", "+15s tick"], ["pause AAA until 315s", "ticked"]),
    "B5 and to the reopening": (
        ["ann buy 1 @110", "+20s bob sell 1 @108", "+295s tick"],
        ["cross 1@108 surplus 0", "trade 1@108 1<2", "phase AAA continuous", "ticked"],
    ),
}

BREAKERS: Final = {
    # References 100 and 50: the index stands at 150.
    "B6 level 1": (
        ["ann buy 1 @89", "bob sell 1 @89"],
        ["take 2", "trade 1@89 1<2", "breaker 1", "pause all until 900s"],
    ),
    "B6 level 2": (
        ["ann buy 1 @80", "bob sell 1 @80"],
        ["take 2", "trade 1@80 1<2", "breaker 2", "pause all until 900s"],
    ),
    "B6 level 3 closes": (
        ["ann buy 2 @70", "bob sell 1 @70"],
        ["take 2", "trade 1@70 1<2", "breaker 3", "expire 1 1@70", "sessionclosed"],
    ),
    "B6 not yet": (["ann buy 1 @90", "bob sell 1 @90"], ["take 2", "trade 1@90 1<2"]),
    "B6 each once": (
        ["ann buy 2 @89 gtc", "bob sell 1 @89", "+901s tick", "bob sell 1 @89"],
        ["take 3", "trade 1@89 1<3"],
    ),
}

LIMITED: Final = {
    # One order meets two others at once.
    "L1 what is left is cancelled, whatever it is": (
        ["ann sell 1 @100", "ann sell 1 @100", "ann sell 1 @100", "bob buy 5 @100"],
        ["take 4", "trade 1@100 1<4", "trade 1@100 2<4", "cancel 4 3 trade_limit"],
    ),
    "L1 nobody further in reach: the rest rests": (
        ["ann sell 1 @100", "ann sell 1 @100", "ann sell 1 @101", "bob buy 5 @100"],
        ["take 4", "trade 1@100 1<4", "trade 1@100 2<4", "rest 4 3@100"],
    ),
    "L1 each part of an iceberg is met": (
        ["ann sell 3 @100 show=1", "bob buy 3 @100"],
        ["take 2", "trade 1@100 1<2", "again 1 1@100", "trade 1@100 1<2", "again 1 1@100", "cancel 2 1 trade_limit"],
    ),
    "L1 self-trade prevention meets, too": (
        ["bob sell 1 @100", "bob sell 1 @100", "ann sell 1 @100", "bob buy 5 @100 oldest"],
        ["take 4", "cancel 1 1 self_trade", "cancel 2 1 self_trade", "cancel 4 5 trade_limit"],
    ),
    "L2 fok": (
        ["ann sell 1 @100", "ann sell 1 @100", "ann sell 1 @100", "bob buy 3 @100 fok"],
        ["take 4", "cancel 4 3 fok_unfilled"],
    ),
    "L2 an all-or-none waits": (
        ["ann sell 1 @100", "ann sell 1 @100", "ann sell 1 @100", "bob buy 3 @100 aon"],
        ["take 4"],
    ),
    "L3 stops are put off": (
        [
            "ann sell 1 @100",
            "ann sell 1 @100",
            "ann sell 1 @101",
            "cid buy 1 stop 100",
            "bob buy 2 @100",
        ],
        ["take 5", "trade 1@100 1<5", "trade 1@100 2<5"],
    ),
    "L3 a replacement that comes at the same instant lets them go on": (
        [
            "ann sell 1 @100",
            "ann sell 1 @100",
            "ann sell 2 @101",
            "cid buy 1 stop 100",
            "bob buy 2 @100",
            "ann replace 3 1 @101",
        ],
        ["replace 3 1@101 kept", "trigger 4", "trade 1@101 3<4"],
    ),
    "L3 and go on before the next command": (
        [
            "ann sell 1 @100",
            "ann sell 1 @100",
            "ann sell 1 @101",
            "cid buy 1 stop 100",
            "bob buy 2 @100",
            "+1s tick",
        ],
        ["trigger 4", "trade 1@101 3<4", "ticked"],
    ),
    "L3 each that begins may meet as many": (
        [
            "ann sell 1 @100",
            "ann sell 1 @101",
            "ann sell 1 @102",
            "ann sell 1 @103",
            "cid buy 3 stop 100",
            "bob buy 1 @100",
        ],
        ["take 6", "trade 1@100 1<6", "trigger 5", "trade 1@101 2<5", "trade 1@102 3<5", "cancel 5 1 trade_limit"],
    ),
    "L3 an all-or-none is put off": (
        ["cid sell 6 @99 aon", "dan buy 3 @99", "ann sell 1 @100", "ann sell 1 @100", "bob buy 5 @100"],
        ["take 5", "trade 1@100 3<5", "trade 1@100 4<5", "rest 5 3@100"],
    ),
    "L3 and filled before the next command": (
        ["cid sell 6 @99 aon", "dan buy 3 @99", "ann sell 1 @100", "ann sell 1 @100", "bob buy 5 @100", "+1s tick"],
        ["trade 3@100 5<1", "trade 3@99 2<1", "ticked"],
    ),
}
