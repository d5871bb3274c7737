"""FetchXML."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.sandbox.in_process import World
from tests.sandbox.odd.queries import Shape, broken, literals, mostly, texts


@st.composite
def fetches(draw: st.DrawFn, world: World, shape: Shape) -> str:
    entity = world.crm.records.by_set[shape.name]
    columns = st.one_of(st.sampled_from(sorted(a.name for a in entity.attributes.values())), texts)
    attribute = texts.map(xml_text)

    @st.composite
    def condition(inner: st.DrawFn) -> str:
        operator = inner(
            st.sampled_from(
                [
                    "eq",
                    "ne",
                    "gt",
                    "le",
                    "like",
                    "not-like",
                    "begins-with",
                    "not-end-with",
                    "in",
                    "not-in",
                    "between",
                    "null",
                    "not-null",
                    "today",
                    "last-x-days",
                    "next-x-days",
                    "last-x-hours",
                    "on",
                    "on-or-after",
                    "on-or-before",
                    "eq-userid",
                    "contain-values",
                    "above",
                    "x",
                    "",
                ]
            )
        )
        value = inner(
            st.one_of(
                literals("Int32"), texts, literals("DateTime"), st.sampled_from(["[", "[]", "[a-", "%[z-a]%", "_"])
            )
        )
        several = "".join(f"<value>{xml_text(each)}</value>" for each in inner(st.lists(texts, max_size=3)))
        name = xml_text(inner(columns))
        how = f' value="{xml_text(value)}"/>' if inner(st.booleans()) else f">{several}</condition>"
        return f'<condition attribute="{name}" operator="{operator}"{how}'

    parts = st.one_of(
        columns.map(lambda name: f'<attribute name="{xml_text(name)}"/>'),
        st.tuples(columns, st.sampled_from(["count", "sum", "avg", "min", "max", "countcolumn", "x"])).map(
            lambda drawn: f'<attribute name="{xml_text(drawn[0])}" alias="{drawn[1]}" aggregate="{drawn[1]}"/>'
        ),
        columns.map(lambda name: f'<attribute name="{xml_text(name)}" alias="g" groupby="true"/>'),
        columns.map(lambda name: f'<order attribute="{xml_text(name)}" descending="true"/>'),
        st.sampled_from(['<order alias="sum"/>', "<all-attributes/>", "<order/>", "<x/>", "<!-- -->", "<filter/>"]),
        st.lists(condition(), max_size=3).map(lambda made: f'<filter type="or">{"".join(made)}</filter>'),
        condition().map(lambda made: f"<filter>{made}</filter>"),
        st.tuples(st.sampled_from(world.crm_tables), columns, columns).map(
            lambda drawn: (
                f'<link-entity name="{drawn[0]}" from="{xml_text(drawn[1])}" to="{xml_text(drawn[2])}" link-type="outer"/>'
            )
        ),
        st.just(
            '<link-entity name="contact" from="parentcustomerid" to="accountid" alias="c"><all-attributes/></link-entity>'
        ),
    )
    inner = "".join(draw(st.lists(parts, max_size=4)))
    option = draw(
        st.one_of(
            st.sampled_from(
                ["", 'aggregate="true"', 'distinct="true"', 'top="3"', 'count="2" page="2"', 'page="²"', 'count="-1"']
            ),
            attribute.map(lambda text: f'top="{text}"'),
        )
    )
    whole = f'<fetch {option}><entity name="{entity.logical}">{inner}</entity></fetch>'
    return draw(mostly(st.just(whole), st.one_of(broken(st.just(whole)), texts, st.sampled_from(XML))))


XML = (
    "<fetch/>", "<fetch><entity/></fetch>", '<?xml version="1.0" encoding="utf-16"?><fetch/>', "<" * 2000, "<a>" * 3000,
    '<!DOCTYPE f [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><fetch><entity name="&b;"/></fetch>',
    '<fetch><entity name="account">' + "<filter>" * 1500 + "</filter>" * 1500 + "</entity></fetch>",
)  # fmt: skip


def xml_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("\x00", "")
