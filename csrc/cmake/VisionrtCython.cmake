# Builds visionrt._fastpath from its Cython source.
set(fastpath_pyx "${CMAKE_SOURCE_DIR}/python/visionrt/_fastpath.pyx")
set(fastpath_c "${CMAKE_BINARY_DIR}/_fastpath.c")
add_custom_command(
  OUTPUT "${fastpath_c}"
  COMMAND "${Python_EXECUTABLE}" -m cython -3 "${fastpath_pyx}" -o "${fastpath_c}"
  DEPENDS "${fastpath_pyx}"
  COMMENT "Cythonizing _fastpath.pyx"
  VERBATIM)
Python_add_library(_fastpath MODULE "${fastpath_c}" WITH_SOABI)
target_include_directories(_fastpath PRIVATE ${Python_NumPy_INCLUDE_DIRS}
                           "${CMAKE_SOURCE_DIR}/csrc")
target_compile_definitions(_fastpath PRIVATE NPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION)
# Comparisons may become blends, and loops with them vectors; no result changes.
target_compile_options(_fastpath PRIVATE -O3 -fno-trapping-math)
