"""XML as a tree, without entities, external or internal, and without network."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from core.loaders.options import problem


def parse_xml(data: bytes | str, kind: str) -> Element:
    """The root element. Raises DocumentError where the XML is damaged or declares entities."""
    try:
        root: Element = fromstring(data, forbid_entities=True, forbid_external=True)
    except DefusedXmlException as error:
        raise problem("entities") from error
    except (ParseError, ValueError, LookupError) as error:
        raise problem("damaged", kind=kind) from error
    return root


def local(element: Element) -> str:
    """The element's name without its namespace; empty for comments and processing instructions."""
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """The attribute of that local name, in whichever namespace; empty where there is none."""
    for key, value in element.attrib.items():
        if key.rsplit("}", 1)[-1] == name:
            return value
    return ""
