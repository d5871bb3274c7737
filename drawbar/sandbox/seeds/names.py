# ruff: noqa: RUF001 - names in Greek and Cyrillic are meant
"""The raw material of the demo data: places, names, trades. Pure data; `seed` makes records of it."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    code: str
    city: str
    county: str
    country: str
    phone: str  # how a number there begins
    streets: tuple[str, ...]


# A city with more than one code is not filled in from its name; a code is always of one city.
PLACES: tuple[Place, ...] = (
    Place("60601", "Chicago", "IL", "US", "+1 312 555", ("W Lake St", "N Wacker Dr", "E Randolph St")),
    Place("60614", "Chicago", "IL", "US", "+1 773 555", ("N Clark St", "W Fullerton Ave")),
    Place("97205", "Portland", "OR", "US", "+1 503 555", ("SW Morrison St", "SW Salmon St")),
    Place("78701", "Austin", "TX", "US", "+1 512 555", ("Congress Ave", "E 6th St", "Brazos St")),
    Place("02110", "Boston", "MA", "US", "+1 617 555", ("Atlantic Ave", "Milk St")),
    Place("31401", "Savannah", "GA", "US", "+1 912 555", ("Bull St", "Drayton St")),
    Place("M5V 2T6", "Toronto", "ON", "CA", "+1 416 555", ("King St W", "Spadina Ave")),
    Place("10115", "Berlin", "", "DE", "+49 30 555", ("Chausseestraße", "Invalidenstraße")),
    Place("10969", "Berlin", "", "DE", "+49 30 555", ("Lindenstraße", "Ritterstraße")),
    Place("80331", "München", "Bayern", "DE", "+49 89 555", ("Sendlinger Straße", "Rindermarkt")),
    Place("29221", "Celle", "Niedersachsen", "DE", "+49 5141 555", ("Zöllnerstraße", "Am Heiligen Kreuz")),
    Place("EC1A 4HD", "London", "", "GB", "+44 20 7946", ("Little Britain", "Aldersgate Street")),
    Place("BS1 4DJ", "Bristol", "", "GB", "+44 117 496", ("Queen Square", "Welsh Back")),
    Place("69002", "Lyon", "Rhône", "FR", "+33 4 99 55", ("Rue Mercière", "Quai des Célestins")),
    Place("44000", "Nantes", "Loire-Atlantique", "FR", "+33 2 99 55", ("Rue Crébillon", "Quai de la Fosse")),
    Place("3011 AD", "Rotterdam", "Zuid-Holland", "NL", "+31 10 555", ("Wijnhaven", "Blaak")),
    Place("8000", "Aarhus C", "", "DK", "+45 86 55", ("Åboulevarden", "Store Torv")),
    Place("21122", "Malmö", "Skåne", "SE", "+46 40 555", ("Södergatan", "Stora Nygatan")),
    Place("28001", "Madrid", "Madrid", "ES", "+34 91 555", ("Calle de Serrano", "Calle de Goya")),
    Place("30-001", "Kraków", "Małopolskie", "PL", "+48 12 555", ("ulica Długa", "ulica Szlak")),
    Place("105 57", "Αθήνα", "Αττική", "GR", "+30 210 555", ("Οδός Ερμού", "Οδός Μητροπόλεως")),
    Place("200001", "上海", "上海", "CN", "+86 21 5550", ("南京东路", "北京东路")),
    Place("01001", "Київ", "", "UA", "+380 44 555", ("вулиця Хрещатик", "вулиця Прорізна")),
)

COUNTRIES: tuple[tuple[str, str, str], ...] = (
    ("US", "USA", "City_x002B_County_x002B_Post_x0020_Code"),
    ("CA", "Canada", "City_x002B_County_x002B_Post_x0020_Code"),
    ("DE", "Germany", "Post_x0020_Code_x002B_City"),
    ("GB", "Great Britain", "City_x002B_Post_x0020_Code"),
    ("FR", "France", "Post_x0020_Code_x002B_City"),
    ("NL", "Netherlands", "Post_x0020_Code_x002B_City"),
    ("DK", "Denmark", "Post_x0020_Code_x002B_City"),
    ("SE", "Sweden", "Post_x0020_Code_x002B_City"),
    ("ES", "Spain", "Post_x0020_Code_x002B_City"),
    ("PL", "Poland", "Post_x0020_Code_x002B_City"),
    ("GR", "Greece", "Post_x0020_Code_x002B_City"),
    ("CN", "China", "Post_x0020_Code_x002B_City"),
    ("UA", "Ukraine", "City_x002B_Post_x0020_Code"),
)

OWNERS: dict[str, tuple[str, ...]] = {
    "US": ("Brennan", "Okafor", "Halvorsen", "Castellano", "Whitfield", "Pruitt", "Delacroix", "Yamada", "Osborne"),
    "CA": ("Tremblay", "MacNeil", "Singh", "Leclerc"),
    "DE": ("Böhm", "Krüger", "Weiß", "Lindemann", "Jäger", "Schönfeld"),
    "GB": ("Ashworth", "Pemberton", "Carew", "Goodall", "Llewellyn"),
    "FR": ("Dubreuil", "Lefèvre", "Marchand", "Gauthier"),
    "NL": ("Van der Meer", "De Vries", "Hoekstra"),
    "DK": ("Sørensen", "Kjær", "Østergaard"),
    "SE": ("Lindqvist", "Åkesson", "Bergström"),
    "ES": ("Ibáñez", "Muñoz", "Carvajal"),
    "PL": ("Wójcik", "Żeleński", "Nowak"),
    "GR": ("Παπαδόπουλος", "Γεωργίου"),
    "CN": ("东方", "长江"),
    "UA": ("Шевченко", "Коваленко"),
}

TRADES: dict[str, tuple[str, ...]] = {
    "US": ("Hardware", "Marine Supply", "Cabinetry", "Lighting", "Outdoor", "Tool & Die", "Coffee Roasters", "Press"),
    "CA": ("Forest Products", "Boatworks", "Outfitters", "Cycles"),
    "DE": ("Werkzeuge", "Möbel", "Feinmechanik", "Großhandel", "Druckerei"),
    "GB": ("Joinery", "Ironmongers", "Provisions", "Instruments"),
    "FR": ("Meubles", "Quincaillerie", "Imprimerie", "Textiles"),
    "NL": ("Scheepsbouw", "Bloemen", "Fietsen"),
    "DK": ("Møbler", "Byggevarer"),
    "SE": ("Trävaror", "Verkstad"),
    "ES": ("Cerámica", "Maquinaria"),
    "PL": ("Meble", "Narzędzia"),
    "GR": ("Ναυτιλιακά", "Έπιπλα"),
    "CN": ("贸易", "机械"),
    "UA": ("Меблі", "Інструмент"),
}

FORMS: dict[str, tuple[str, ...]] = {
    "US": ("Inc.", "LLC", "Co."),
    "CA": ("Ltd.", "Inc."),
    "DE": ("GmbH", "KG", "GmbH & Co. KG"),
    "GB": ("Ltd", "& Sons"),
    "FR": ("SARL", "SA"),
    "NL": ("B.V.",),
    "DK": ("A/S", "ApS"),
    "SE": ("AB",),
    "ES": ("S.L.", "S.A."),
    "PL": ("Sp. z o.o.",),
    "GR": ("Α.Ε.", "Ε.Π.Ε."),
    "CN": ("有限公司",),
    "UA": ("ТОВ",),
}

# code, first name, last name; the last four have no user in the CRM
SALESPEOPLE: tuple[tuple[str, str, str], ...] = (
    ("JR", "John", "Roberts"),
    ("LT", "Linda", "Tate"),
    ("AH", "Annette", "Hill"),
    ("BD", "Bart", "Duncan"),
    ("MK", "Mireille", "Kessler"),
    ("OS", "Otis", "Sandoval"),
    ("PW", "Priya", "Warrier"),
    ("EV", "Erik", "Vinter"),
    ("CM", "Chiara", "Morandi"),
    ("TN", "Tomasz", "Nowicki"),
    ("DC", "Debra", "Core"),
    ("RB", "Robin", "Bettencourt"),
    ("HK", "Hanna", "Köhler"),
    ("SG", "Samuel", "Greene"),
)
WITH_USER = 10

# licensed users who are no salesperson yet
NEWCOMERS: tuple[tuple[str, str], ...] = (
    ("Veronica", "Quick"),
    ("Alan", "Steiner"),
    ("Yolanda", "Méndez"),
    ("Kwame", "Boateng"),
    ("Sofia", "Αντωνίου"),
    ("Greg", "Winston-Hollingsworth"),
)

FIRST_NAMES: dict[str, tuple[str, ...]] = {
    "US": ("Emily", "Marcus", "Denise", "Theo", "Shannon", "Darnell", "Grace"),
    "CA": ("Chantal", "Owen", "Harpreet", "Noah"),
    "DE": ("Jürgen", "Katrin", "Sören", "Annelie", "Uwe"),
    "GB": ("Rhys", "Imogen", "Callum", "Fiona"),
    "FR": ("Élodie", "Jean-Luc", "Françoise", "Benoît"),
    "NL": ("Sanne", "Joris", "Femke"),
    "DK": ("Søren", "Mette", "Jørgen"),
    "SE": ("Åsa", "Björn", "Linnea"),
    "ES": ("José Luis", "Begoña", "Íñigo"),
    "PL": ("Małgorzata", "Łukasz", "Zofia"),
    "GR": ("Ελένη", "Νίκος"),
    "CN": ("小明", "丽华"),
    "UA": ("Олена", "Тарас"),
}

# names as people write them into one field, that no rule splits well
ODD_NAMES: tuple[str, ...] = (
    "Teller",
    "Dr. Helga Weiß",
    "Mr. Anthony J. Okonkwo",
    "Prof. Dr. Karl-Heinz von der Aue",
    "Siobhán O'Brien",
    "María de los Ángeles Fernández-Castaño y Ruiz de Alarcón",
    "J. R. R. Hollingbery III",
    "Anna Maria Johanna van den Berg",
    "Sukarno",
    "Mme Geneviève d'Aubigny",
    "Smith, Jordan",
)

# companies the ERP knows as contacts and that buy nothing
PROSPECTS: tuple[str, ...] = (
    "Lakeside Fixtures LLC",
    "Meridian Barrel Works",
    "Quill & Anvil Press",
    "Nordlicht Leuchten GmbH",
    "Atelier Vauban SARL",
    "Kestrel Rope Company",
    "Veldkamp Tuinen B.V.",
    "Fjordkyst Møbler A/S",
    "Sierra Cerámica S.L.",
    "Zielona Stolarnia Sp. z o.o.",
    "Harrow Lane Bindery",
    "Tidewater Chandlers Inc.",
)

JOBS: tuple[str, ...] = (
    "Purchasing manager",
    "Owner",
    "Warehouse lead",
    "Accountant",
    "Head of logistics and returns",
    "",
)

# code, name, symbol: what the ERP of a company that trades has besides
MORE_CURRENCIES: tuple[tuple[str, str, str], ...] = (
    ("SEK", "Swedish krona", "kr"),
    ("CHF", "Swiss franc", "CHF"),
)

# code, what one unit of it costs in the local currency, from which day
EXCHANGE_RATES: tuple[tuple[str, str, float], ...] = (
    ("EUR", "2023-01-01", 1.0622),
    ("EUR", "2025-01-01", 1.0389),
    ("EUR", "2026-01-01", 1.1746),
    ("EUR", "2099-01-01", 1.5),
    ("GBP", "2023-01-01", 1.2039),
    ("GBP", "2026-01-01", 1.3475),
    ("DKK", "2023-01-01", 0.1428),
    ("DKK", "2026-01-01", 0.1573),
    ("SEK", "2023-01-01", 0.0955),
    ("SEK", "2026-01-01", 0.1085),
    ("CHF", "2023-01-01", 1.0755),
)

# code, name, symbol, units of it for one of the base currency: what the CRM has besides
CRM_CURRENCIES: tuple[tuple[str, str, str, float], ...] = (
    ("GBP", "Pound Sterling", "£", 0.74),
    ("DKK", "Danish Krone", "kr.", 6.4),
    ("SEK", "Svensk krona", "kr", 9.3),
    ("CAD", "Canadian Dollar", "$", 1.37),
)
