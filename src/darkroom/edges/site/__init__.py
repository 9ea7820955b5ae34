"""The Mini App: pages that a customer sees, rendered on the server. They call `flow`, as the API does."""

from darkroom.edges.site import (
    account,
    files,
    gallery,
    order,
    payments,
    selfies,
    sets,
    sign_in,
    welcome,
)

PAGES = (files, welcome, sign_in, selfies, order, payments, sets, gallery, account)
