"""The web interface: pages for people, over the control interface and nothing else.

Theory of operation. Every page is a row of `pages.PAGES`: a path and a coroutine that asks the control interface and
answers a template's values. Every change is a row of `acts.ACTS`: a form's POST under ``/do/``, one operation of the
control interface, then a redirect to the page that shows the outcome. Pages are whole without JavaScript. With it,
`feed.Feed` looks at the director once for all viewers and streams what changed of what pages show (`cells`), so that a
page that is open follows.

Who looks is found out by `visitors.Visitors`: a session's cookie, or nobody but this machine where there are no users.
Roles are the control interface's business; a page merely leaves out forms that would be refused.
"""
